"""Bytes an engine has read, from /proc/PID/io: which process it is, and how its counters grew over a wake.

Two counters (proc_pid_io(5)): `rchar`, what read(2) returned, page cache included; `read_bytes`, what
storage was asked for, which also counts the pages of a memory map. Counters cover the process and its
descendants alive now.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from poorwill.core.entries import PhaseSpan
from poorwill.core.machine.phase_limit import EXPECTED_DETAIL
from poorwill.core.words import SECOND_US, Phase
from poorwill.hosts.files.read_ahead import ReadAhead
from poorwill.policies.coldstart.leaves import READ_AHEAD_DETAILS, STORAGE_DETAIL

_PROC = Path("/proc")
_MOST_PROCESSES = 200
_LEAST_SLOW_US = SECOND_US
_LOOKS_TO_FIND, _LULL_US = 20, SECOND_US // 50
SHORT_OF = 0.8
"""Weights read at less than this share of the expected rate are marked as slow."""
_LEAST_BYTES = 64 * 1024
"""Less than this in a phase is start-up noise (a module, a header), not reading a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IoSample:
    """Both counters of a process tree at one instant."""

    at_us: int
    asked: int
    storage: int

    def same(self, other: "IoSample") -> bool:
        """Return whether nothing was read between the two."""
        return (self.asked, self.storage) == (other.asked, other.storage)


def find_process(argv: Sequence[str]) -> int | None:
    """Return the newest process with this argument vector, None if there is none; scans /proc once.

    A script's interpreter, which the kernel puts before it, may precede the vector.
    """
    wanted = b"\0".join(word.encode() for word in argv) + b"\0"
    newest = None
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if file.read().endswith(wanted):
                newest = max(newest or 0, int(name))
    return newest


def io_sample(pid: int, at_us: int) -> IoSample | None:
    """Return the counters of the process and its descendants, None if they cannot be read."""
    asked = storage = 0
    known = False
    for member in _family(pid):
        try:
            lines = (_PROC / str(member) / "io").read_text().splitlines()
        except OSError:
            continue
        counters = {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}
        asked += counters.get("rchar", 0)
        storage += counters.get("read_bytes", 0)
        known = True
    return IoSample(at_us=at_us, asked=asked, storage=storage) if known else None


@dataclass(slots=True, kw_only=True)
class IoTrack:
    """The counters over one wake, kept if they changed."""

    argv: Sequence[str]
    """Empty: the engine is no process of this machine."""
    pid: int | None = None
    samples: list[IoSample] = field(default_factory=list)
    read_us: int = 0
    """When something was last read from storage."""
    most: int = 10_000
    looks: int = 0
    next_scan: int = 1
    """A look at all processes takes milliseconds that a wake needs itself, so each waits a quarter longer."""

    def busy(self, at_us: int) -> bool:
        """Return whether the engine has just read from storage, or may not have been found yet."""
        return self.looks < _LOOKS_TO_FIND if self.pid is None else at_us - self.read_us < _LULL_US

    def look(self, at_us: int) -> None:
        """Take a sample. Never raises: what cannot be read is not known."""
        self.looks += 1
        if self.pid is None and self.argv and self.looks >= self.next_scan:
            self.next_scan += 1 + self.looks // 4
            self.pid = find_process(self.argv)
        if self.pid is None:
            return
        sample = io_sample(self.pid, at_us)
        if sample is not None and sample.storage > (self.samples[-1].storage if self.samples else 0):
            self.read_us = at_us
        if sample is None or len(self.samples) >= self.most:
            return
        if len(self.samples) > 1 and sample.same(self.samples[-1]) and sample.same(self.samples[-2]):
            self.samples[-1] = sample  # of a standstill only both ends are kept
        else:
            self.samples.append(sample)

    def with_bytes(
        self, spans: Sequence[PhaseSpan], *, expected_rate: float | None = None
    ) -> list[PhaseSpan]:
        """Return the leaves with the bytes read in each, if they are not known yet.

        Weights read at well under the expected rate (bytes a second) are marked as slow.
        """
        found = [self._with_bytes(span) for span in spans]
        if expected_rate is None:
            return found
        return [_marked_slow(span, expected_rate) for span in found]

    def _with_bytes(self, span: PhaseSpan) -> PhaseSpan:
        if span.bytes_read is not None or not self.samples:
            return span
        asked = self._grew("asked", span.began_us, span.ended_us)
        storage = self._grew("storage", span.began_us, span.ended_us)
        if max(asked, storage) < _LEAST_BYTES:
            return span
        note = STORAGE_DETAIL.format(storage)
        detail = f"{span.detail}, {note}" if span.detail else note
        return replace(span, bytes_read=max(asked, storage), detail=detail)

    def _grew(self, counter: str, began_us: int, ended_us: int) -> int:
        return max(0, round(self._at(counter, ended_us) - self._at(counter, began_us)))

    def _at(self, counter: str, at_us: int) -> float:
        """Return the counter at an instant, linear between two samples, 0 before the first."""
        index = bisect_right(self.samples, at_us, key=lambda sample: sample.at_us)
        if index == 0:
            return 0.0
        before = self.samples[index - 1]
        value: float = getattr(before, counter)
        if index == len(self.samples):
            return value
        after = self.samples[index]
        share = (at_us - before.at_us) / (after.at_us - before.at_us)
        more: float = getattr(after, counter) - value
        return value + share * more


def with_notes(spans: Sequence[PhaseSpan], ahead: ReadAhead | None, note: str = "") -> Sequence[PhaseSpan]:
    """Return the leaves with a note and what was read ahead told at the weights, else at the longest."""
    notes = [note] if note else []
    if ahead is not None and ahead.wanted:
        counts = (ahead.read, ahead.cached, ahead.missed)
        notes += [text.format(count) for text, count in zip(READ_AHEAD_DETAILS, counts, strict=True) if count]
    if not notes or not spans:
        return spans
    words = ", ".join(notes) + ("; memory is short" if ahead is not None and ahead.short_of_room else "")
    weights = (span for span in spans if span.phase is Phase.WEIGHTS)
    where = next(weights, max(spans, key=lambda span: span.ended_us - span.began_us))
    detail = f"{where.detail}, {words}" if where.detail else words
    return [replace(span, detail=detail) if span is where else span for span in spans]


def _marked_slow(span: PhaseSpan, expected_rate: float) -> PhaseSpan:
    took_us = span.ended_us - span.began_us
    if span.phase is not Phase.WEIGHTS or span.bytes_read is None or took_us < _LEAST_SLOW_US:
        return span
    if span.bytes_read / took_us * SECOND_US >= SHORT_OF * expected_rate:
        return span
    return replace(span, detail=f"{span.detail}, {EXPECTED_DETAIL.format(expected_rate)}")


def _family(pid: int) -> Iterator[int]:
    waiting, seen = [pid], 0
    while waiting and seen < _MOST_PROCESSES:
        member = waiting.pop()
        seen += 1
        yield member
        try:
            tasks = list((_PROC / str(member) / "task").iterdir())
            for task in tasks:
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue
