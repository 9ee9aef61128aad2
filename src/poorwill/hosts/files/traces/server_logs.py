"""Requests in the logs of servers: nginx access logs, vLLM, llama-server.

A log line has no columns: a pattern finds them. Lines about anything else are passed over.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

YEARLESS = "1972"
"""Stands for the year that vLLM's own times lack; a leap year, so that 02-29 is a date."""

INFERENCE_PATH = re.compile(
    r"/(chat/completions|completions?|embeddings|responses|messages|rerank|generate|infill|api/(chat|generate))/?$"
)
"""Paths that want a model; probes, model lists and metrics do not."""

_ACCESS = re.compile(
    r'\[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\].*?"([A-Z]+) (\S+)[^"]*"\s+\d{3}(.*)', re.DOTALL
)
_TOOK = re.compile(r"\b(?:rt|request_time)=\"?([\d.]+)", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"\s(\d+\.\d{3})\s*$")

_ISO = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
_ISO_FIRST = re.compile(_ISO)
_VLLM_LINE = re.compile(r"\bINFO \d\d-\d\d \d\d:\d\d:\d\d ")
_VLLM = re.compile(
    r"INFO (\d\d-\d\d \d\d:\d\d:\d\d) .*?(Received|Added|Finished) request ([\w.:-]+?)[:.]?(?=\s|$)"
)
_LLAMA = re.compile(r"\b(launch_slot_?|update_slots|print_timing|log_server_r): ")
_LLAMA_LAUNCH = re.compile(r"launch_slot_?: id +\d+ \| task +(\d+) \| processing task")
_LLAMA_TASK = re.compile(r"print_timing: id +\d+ \| task +(\d+)")
_LLAMA_CLOCK = re.compile(r"\b(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) [A-Z] ")
_LLAMA_PROMPT = re.compile(r"prompt eval time = *([\d.]+) ms / *(\d+) tokens")
_LLAMA_ANSWER = re.compile(r"(?<!prompt )eval time = *([\d.]+) ms / *(\d+) tokens")
_LLAMA_TOTAL = re.compile(r"total time = *([\d.]+) ms")
_LLAMA_END = re.compile(r"release: id +\d+ \| task +(\d+)")

Fields = dict[str, str]


@dataclass(frozen=True, slots=True)
class LogKind:
    """One server's log."""

    name: str
    columns: tuple[str, ...]
    recognises: Callable[[str], object]
    """Whether a line is of this kind of log."""
    read: "Callable[[LogRecords, str], Fields | str | None]"
    """Returns a finished request, why there is none, or None for a line about something else."""


@dataclass(slots=True)
class LogRecords:
    """Reads one log; requests that several lines tell of are put together."""

    kind: LogKind
    open: dict[str, Fields] = field(default_factory=dict)
    """Requests begun and not finished, by their name in the log, in the order of their begin."""
    last: str = ""
    """The last time without a year."""
    years: int = 0
    """How often the year has changed since the first line."""
    task: str = ""
    """The llama-server task that lines without a name belong to."""

    def rows(self, lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, str] | str]]:
        """Yield every request with the line that told of it last."""
        number = 0
        for number, line in enumerate(lines, start=1):
            found = self.kind.read(self, line)
            if found is not None:
                yield number, found
        yield from ((number, request) for request in self.open.values())


def _nginx(_: LogRecords, line: str) -> Fields | str | None:
    found = _ACCESS.search(line)
    if found is None:
        return "not a line of an access log" if line.strip() else None
    when, method, target, rest = found.groups()
    if method != "POST" or not INFERENCE_PATH.search(target.partition("?")[0]):
        return None
    took = _TOOK.search(rest) or _LAST_NUMBER.search(rest)
    try:
        at = datetime.strptime(when, "%d/%b/%Y:%H:%M:%S %z").isoformat()
    except ValueError:
        return f"{when} is no time"
    return {"time_local": at, "request_time": took.group(1) if took else ""}


def _vllm(log: LogRecords, line: str) -> Fields | None:
    found = _VLLM.search(line)
    if found is None:
        return None
    when, what, request = found.groups()
    iso = _ISO_FIRST.match(line.lstrip())
    log.years += when < "02" and log.last > "12"
    log.last = when
    at = iso.group(1) if iso else f"{int(YEARLESS) + log.years}-{when}"
    if what != "Finished":
        log.open.setdefault(request, {"time": at})
        return None
    begun = log.open.pop(request, None)
    return None if begun is None else {**begun, "end": at}


def _llama(log: LogRecords, line: str) -> Fields | str | None:
    if launched := _LLAMA_LAUNCH.search(line):
        if not (at := _llama_time(line)):
            return "no time; start llama-server with --log-timestamps, or let a log collector date its lines"
        log.open[launched.group(1)] = {"time": at}
        return None
    if told := _LLAMA_TASK.search(line):
        log.task = told.group(1)
    request = log.open.get(log.task)
    if request is None:
        return None
    if prompt := _LLAMA_PROMPT.search(line):
        request["prompt_tokens"] = prompt.group(2)
        request["prompt_ms"] = prompt.group(1)
    elif answer := _LLAMA_ANSWER.search(line):
        request["output_tokens"] = answer.group(2)
        request["service_ms"] = str(float(request.get("prompt_ms", "0")) + float(answer.group(1)))
    elif total := _LLAMA_TOTAL.search(line):
        request["service_ms"] = total.group(1)
    elif (ended := _LLAMA_END.search(line)) and ended.group(1) in log.open:
        return log.open.pop(ended.group(1))
    return None


def _llama_time(line: str) -> str:
    """Return the line's time: the log collector's, else seconds since the server's start; empty without."""
    if iso := _ISO_FIRST.match(line.lstrip()):
        return iso.group(1)
    if clock := _LLAMA_CLOCK.search(line):
        minutes, seconds, ms, us = (int(part) for part in clock.groups())
        return f"{60 * minutes + seconds}.{ms:03d}{us:03d}"
    return ""


LOG_KINDS: Sequence[LogKind] = (
    LogKind("nginx", ("time_local", "request_time"), _ACCESS.search, _nginx),
    LogKind("vllm", ("time", "end"), _VLLM_LINE.search, _vllm),
    LogKind("llama-server", ("time", "prompt_tokens", "output_tokens", "service_ms"), _LLAMA.search, _llama),
)
