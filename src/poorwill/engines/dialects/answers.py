"""Reads token counts from answers as they pass, however they are split, within a bound of memory.

Lines of an event stream are decoded if they have usage; of the others, those with text are counted. Of a
JSON answer, which may have hundreds of megabytes, the beginning and the end are kept: usage is at either.
"""

import json
import re

from poorwill.core.ports.answers import AnswerReader, Counts
from poorwill.engines.dialects.usage import Tally

_HEAD_BYTES = 64 * 1024
_TAIL_BYTES = 64 * 1024
_LINE_BYTES = 256 * 1024
"""A longer line of an event stream is not read: final responses of OpenAI's repeat the whole answer."""
_TEXT = re.compile(
    rb'"(?:content|reasoning(?:_content)?|text|arguments|delta|partial_json|thinking)"'
    rb'[ \t]*:[ \t]*"[^"\n][^\n]*'
)
"""A line with a piece of an answer, in every dialect. Within a text such quotes would be escaped."""
_KEYS = (b'"usage"', b'"timings"')
_EVENT_END = re.compile(rb"\r?\n\r?\n")


class EventReader:
    """Reads a stream of events, or of JSON lines."""

    __slots__ = ("_line", "_skips", "_tally")

    def __init__(self) -> None:
        self._tally = Tally()
        self._line = bytearray()
        self._skips = False  # the rest of a line that is too long

    def feed(self, data: bytes) -> bytes:
        """Read the next piece; all of it is for the client."""
        begin = 0
        if self._line or self._skips:
            begin = data.find(b"\n") + 1
            self._keep(data[:begin] if begin else data)
            if not begin:
                return data
            self._end_line()
        end = data.rfind(b"\n") + 1
        if begin < end:
            self.read(data, begin, end)
        if end < len(data):
            self._keep(data[end:])
        return data

    def read(self, data: bytes, begin: int, end: int) -> bool:
        """Read whole lines; return whether one of them is a chunk of usage and nothing else."""
        self._tally.pieces += len(_TEXT.findall(data, begin, end))
        found = False
        for key in _KEYS:
            at = data.find(key, begin, end)
            while at >= 0:
                line_end = data.find(b"\n", at, end)
                line_end = end if line_end < 0 else line_end
                line = data[data.rfind(b"\n", begin, at) + 1 or begin : line_end]
                found |= self._tally.read(line.removeprefix(b"data:"))
                at = data.find(key, line_end, end)
        return found

    def _keep(self, data: bytes) -> None:
        if self._skips or len(self._line) + len(data) > _LINE_BYTES:
            self._line.clear()
            self._skips = True
        else:
            self._line += data

    def _end_line(self) -> None:
        if not self._skips:
            self.read(bytes(self._line), 0, len(self._line))
        self._line.clear()
        self._skips = False

    def rest(self) -> bytes:
        """Return nothing: nothing is held back."""
        return b""

    def counts(self, *, complete: bool) -> Counts:
        """Return what the stream reported, else what was counted of it."""
        if self._line:
            self._end_line()
        return self._tally.counts(complete=complete)


class HidingReader:
    """Reads a stream of events and takes out the chunk that has usage and nothing else.

    The client did not ask for it. An event that came in part waits for its end, `_LINE_BYTES` of it at most.
    """

    __slots__ = ("_events", "_held")

    def __init__(self) -> None:
        self._events = EventReader()
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Read the next piece; return the events in it that are complete and not ours."""
        if self._held:
            seen = max(len(self._held) - 3, 0)
            self._held += data
            if len(self._held) < _LINE_BYTES and not _EVENT_END.search(self._held, seen):
                return b""
            data = bytes(self._held)
            self._held.clear()
        if b'"usage"' not in data and data.endswith(b"\n\n"):
            return self._events.feed(data)
        passed, at = [], 0
        for found in _EVENT_END.finditer(data):
            event = data[at : found.end()]
            at = found.end()
            if not self._is_ours(event):
                passed.append(event)
        if len(data) - at < _LINE_BYTES:
            self._held += data[at:]
        else:  # no event is as long as this
            passed.append(self._events.feed(data[at:]))
        return b"".join(passed)

    def _is_ours(self, event: bytes) -> bool:
        if event.startswith(b"data:") and event.count(b"\n", 0, -4) == 0:
            return self._events.read(event, 0, len(event))
        self._events.feed(event)
        return False

    def rest(self) -> bytes:
        """Return what was held back: an event without an end."""
        held = bytes(self._held)
        self._held.clear()
        return b"" if self._is_ours(held) else held

    def counts(self, *, complete: bool) -> Counts:
        """Return what the stream reported, else what was counted of it."""
        return self._events.counts(complete=complete)


class DocumentReader:
    """Reads a JSON answer: all of a small one, the beginning and the end of a large one."""

    __slots__ = ("_cut", "_head", "_tail")

    def __init__(self) -> None:
        self._head: bytes | bytearray = b""
        self._tail = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> bytes:
        """Keep what may have usage; all of it is for the client."""
        room = max(_HEAD_BYTES - len(self._head), 0)
        if not self._head:
            self._head = data[:room]
        elif room:
            self._head = bytearray(self._head) if isinstance(self._head, bytes) else self._head
            self._head += data[:room]
        if len(data) > room:
            self._tail += data[room:]
            if len(self._tail) > 2 * _TAIL_BYTES:
                del self._tail[:-_TAIL_BYTES]
                self._cut = True
        return data

    def rest(self) -> bytes:
        """Return nothing: nothing is held back."""
        return b""

    def counts(self, *, complete: bool) -> Counts:
        """Return what the answer reported."""
        tally = Tally()
        if not self._cut:
            tally.read(bytes(self._head) + self._tail if self._tail else self._head)
        else:
            for piece in (bytes(self._head), bytes(self._tail)):
                tally.read(_last_usage(piece))
        return tally.counts(complete=complete)


def _last_usage(text: bytes) -> bytes:
    """Return a document with the last `usage` object in part of another one, if it is all there."""
    at = text.rfind(b'"usage"')
    begin = text.find(b"{", at)
    if at < 0 or text[at + 7 : begin].strip() != b":":
        return b""
    try:
        value, _ = json.JSONDecoder().raw_decode(text[begin:].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return b""
    return json.dumps({"usage": value}).encode()


def answer_reader(content_type: bytes, *, hides: bool) -> AnswerReader | None:
    """Return what reads an answer of this content type, None if none has counts: speech, images, files.

    `hides`: a stream's chunk of usage is not for the client.
    """
    if content_type.startswith(b"text/event-stream"):
        return HidingReader() if hides else EventReader()
    if content_type.startswith((b"application/x-ndjson", b"application/jsonl")):
        return EventReader()
    return DocumentReader() if b"json" in content_type else None
