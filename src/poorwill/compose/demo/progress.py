"""What the demo shows while it runs: one line for each thing that happens, as it happens."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from poorwill.compose.demo.replay import COLD, Answer
from poorwill.core.entries import Entry, Noted, ParkEnded, WakeBegan, WakeEnded
from poorwill.core.format import duration, size
from poorwill.core.ports.view import EventFeed
from poorwill.core.words import Tier


@dataclass(slots=True, kw_only=True)
class Show:
    """Writes lines about the work: the report is the result, this is the work. Silent with `quiet`."""

    write: Callable[[str], None]
    quiet: bool
    began: float = field(default_factory=perf_counter)
    wakes_began: dict[str, WakeBegan] = field(default_factory=dict)
    woken: set[Tier] = field(default_factory=set)
    """The tiers that wakes have succeeded from."""

    def line(self, text: str, of: str = "") -> None:
        """Show a line with the time since the demo began, and which model or replica it is about."""
        if not self.quiet:
            whose = f"{of.removesuffix('-0'):<{len(COLD) + 2}}  " if of else ""
            self.write(f"{perf_counter() - self.began:6.1f} s  {whose}{text}")

    def answered(self, answer: Answer) -> None:
        """Show one answered request."""
        first, whole = duration(round(answer.first_token_s * 1e6)), duration(round(answer.total_s * 1e6))
        how = f"FAILED  {answer.error}" if answer.error else f"first token {first}, all {whole}"
        self.line(f"request {answer.number:>2}  {how}", answer.model)

    async def follow(self, feed: EventFeed) -> None:
        """Show wakes, parks and remarks until cancelled."""
        async for entry in feed:
            if not isinstance(entry, int):
                self.entry(entry)

    def done(self) -> None:
        """Show that the work is over."""
        self.line("done")

    def entry(self, entry: Entry) -> None:
        """Show one entry of the ledger."""
        if isinstance(entry, WakeBegan):
            self.wakes_began[entry.wake] = entry
            self.line(f"            waking from {entry.from_tier} ({entry.why})", entry.replica)
        elif isinstance(entry, WakeEnded):
            began = self.wakes_began.pop(entry.wake, None)
            if began and entry.ok:
                self.woken.add(began.from_tier)
            took_us = entry.at_us - began.at_us if began else 0
            spent_us: Counter[str] = Counter()  # a phase can come in several pieces
            for leaf in entry.anatomy:
                spent_us[leaf.phase] += leaf.ended_us - leaf.began_us
            parts = ", ".join(f"{phase} {duration(us)}" for phase, us in spent_us.items())
            how = "ready" if entry.ok else f"FAILED: {entry.why}"
            self.line(f"            {how} after {duration(took_us)}: {parts}", entry.replica)
        elif isinstance(entry, ParkEnded):
            took = duration(entry.at_us - entry.began_us)
            image = f", {size(entry.image_bytes)}" if entry.image_bytes else ""
            how = "parked" if entry.ok else f"NOT parked ({entry.why})"
            self.line(f"            {how} {entry.to_tier} in {took}{image}", entry.replica)
        elif isinstance(entry, Noted):
            self.line(f"            {entry.kind}: {entry.text}", entry.replica or "")
