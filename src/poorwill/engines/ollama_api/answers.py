"""From an answer of OpenAI's API to one of Ollama's, piece by piece.

A stream of events becomes a stream of JSON lines; the last line has why it ended and the counts. Durations
are those of the gateway: the load is the time until the engine answered, the evaluation the rest.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from poorwill.core.ports.answers import UNKNOWN, AnswerReader, Counts
from poorwill.engines.dialects.answers import answer_reader

_LINE_BYTES = 2**24
_US_NS = 1000
Json = dict[str, Any]
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class OllamaAnswer:
    """Implements `core.ports.answers.AnswerReader` for one answer. `path` is what Ollama's client asked."""

    def __init__(
        self,
        *,
        path: str,
        model: str,
        loads: bool,
        status: int,
        content_type: bytes,
        began_us: int,
        now_us: Callable[[], int],
    ) -> None:
        self._path = path
        self._model = model
        self._loads = loads
        self._ok = status == 200
        self._events = self._ok and content_type.startswith(b"text/event-stream")
        self._counts: AnswerReader | None = answer_reader(content_type, hides=False)
        self._began_us, self._first_us, self._now_us = began_us, now_us(), now_us
        self._kept = bytearray()
        self._reason = "stop"
        self._calls: dict[int, Json] = {}
        self._whole = False

    def feed(self, data: bytes) -> bytes:
        """Read the next piece of the engine's answer; return the lines that follow from it."""
        if self._counts is not None:
            self._counts.feed(data)
        self._kept += data
        if not self._events:
            return b""
        *lines, rest = bytes(self._kept).split(b"\n")
        self._kept = bytearray(rest[-_LINE_BYTES:])
        return b"".join(map(self._line, lines))

    def rest(self) -> bytes:
        """Return the last line of a stream; of any other answer, all of it."""
        self._whole = True
        if self._events:
            line = self._line(bytes(self._kept))
            return line + _written(self._last(self._piece("", "", list(self._calls.values()))))
        try:
            document = _decode(bytes(self._kept))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            document = {"error": self._kept[:300].decode("utf-8", "replace")}
        return _written(self._document(document))

    def counts(self, *, complete: bool) -> Counts:
        """Return the counts of the engine's answer."""
        return UNKNOWN if self._counts is None else self._counts.counts(complete=complete)

    # --

    def _line(self, line: bytes) -> bytes:
        """Return what follows from one line of the engine's stream: nothing, or one line."""
        line = line.strip()
        if not line.startswith(b"data:"):
            return b""
        try:
            event = _decode(line[5:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return b""  # [DONE]
        if "error" in event:
            return _written({"error": _message(event)})
        choices = event.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        self._reason = choices[0].get("finish_reason") or self._reason
        for call in delta.get("tool_calls") or ():
            _add_call(self._calls, call)
        text = delta.get("content") or choices[0].get("text") or ""
        thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
        return _written(self._piece(text, thinking, [])) if text or thinking else b""

    def _document(self, document: Json) -> Json:
        if not self._ok or "error" in document:
            return {"error": _message(document)}
        if self._path == "/api/embeddings":
            return {"embedding": (document.get("data") or [{}])[0].get("embedding", [])}
        if self._path == "/api/embed":
            rows = sorted(document.get("data") or (), key=lambda row: row.get("index", 0))
            return {
                "model": self._model,
                "embeddings": [row["embedding"] for row in rows],
                "total_duration": (self._now_us() - self._began_us) * _US_NS,
                "load_duration": (self._first_us - self._began_us) * _US_NS,
                "prompt_eval_count": self.counts(complete=True).tokens_in or 0,
            }
        choice = (document.get("choices") or [{}])[0]
        message = choice.get("message") or {}
        if self._loads:
            self._reason = "load"
            return self._last(self._piece("", "", []), counted=False)
        self._reason = choice.get("finish_reason") or "stop"
        for at, call in enumerate(message.get("tool_calls") or ()):
            _add_call(self._calls, {"index": at, **call})
        text = message.get("content") or choice.get("text") or ""
        thinking = message.get("reasoning_content") or message.get("reasoning") or ""
        return self._last(self._piece(text, thinking, list(self._calls.values())))

    def _piece(self, text: str, thinking: str, calls: list[Json]) -> Json:
        created = datetime.fromtimestamp(self._now_us() / 1e6, UTC).isoformat().replace("+00:00", "Z")
        piece: Json = {"model": self._model, "created_at": created}
        if self._path == "/api/generate":
            piece |= {"response": text} | ({"thinking": thinking} if thinking else {})
        else:
            message: Json = {"role": "assistant", "content": text}
            message |= {"thinking": thinking} if thinking else {}
            message |= {"tool_calls": [_shown(call) for call in calls]} if calls else {}
            piece["message"] = message
        return piece | {"done": False}

    def _last(self, piece: Json, *, counted: bool = True) -> Json:
        """Return a piece as the last one: why it ended, how long it took, how many tokens."""
        now_us, counts = self._now_us(), self.counts(complete=True)
        piece |= {
            "done": True,
            "done_reason": "length"
            if self._reason == "length"
            else "load"
            if self._reason == "load"
            else "stop",
            "total_duration": (now_us - self._began_us) * _US_NS,
            "load_duration": (self._first_us - self._began_us) * _US_NS,
        }
        if counted:
            piece |= {
                "prompt_eval_count": counts.tokens_in or 0,
                "prompt_eval_duration": 0,
                "eval_count": counts.tokens_out or 0,
                "eval_duration": max(now_us - self._first_us, 1) * _US_NS,
            }
        return piece


def _written(document: Json) -> bytes:
    return msgspec.json.encode(document) + b"\n"


def _message(document: Json) -> str:
    error = document.get("error", document.get("message", document.get("detail", "")))
    found = error.get("message") if isinstance(error, dict) else error
    return found if isinstance(found, str) and found else "the engine failed"


def _add_call(calls: dict[int, Json], part: Json) -> None:
    """Put a part of a call to the others: its name comes first, its arguments in pieces."""
    call = calls.setdefault(part.get("index") or 0, {"name": "", "arguments": ""})
    function = part.get("function") or {}
    call["name"] += function.get("name") or ""
    call["arguments"] += function.get("arguments") or ""


def _shown(call: Json) -> Json:
    try:
        arguments = _decode(call["arguments"].encode() or b"{}")
    except msgspec.MsgspecError:
        arguments = {"arguments": call["arguments"]}
    return {"function": {"name": call["name"], "arguments": arguments}}
