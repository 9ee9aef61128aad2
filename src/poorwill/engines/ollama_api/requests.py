"""From a request of Ollama's API to one of OpenAI's.

What has no counterpart (`num_ctx`, `num_gpu`, `template`, `context` ...) is left out: how the engine is
started says `fleet.toml`. So is `keep_alive`: when a model is parked is for its policy to say.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.words import ModelName

_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "temperature": ("temperature",),
        "top_p": ("top_p",),
        "top_k": ("top_k",),
        "min_p": ("min_p",),
        "seed": ("seed",),
        "stop": ("stop",),
        "num_predict": ("max_tokens",),
        "presence_penalty": ("presence_penalty",),
        "frequency_penalty": ("frequency_penalty",),
        "repeat_penalty": ("repeat_penalty", "repetition_penalty"),  # llama.cpp's name, and vLLM's
    }
)
_LATEST = ":latest"
Json = dict[str, Any]


class _Ask(Struct):
    """The fields of all of Ollama's requests."""

    model: str = ""
    name: str = ""
    messages: tuple[Json, ...] = ()
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    images: list[str] | None = None
    input: Any = None
    dimensions: int | None = None
    raw: bool = False
    stream: bool | None = None
    format: Any = None
    think: bool | str | None = None
    tools: list[Json] | None = None
    options: Json | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


_ask = msgspec.json.Decoder(_Ask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """A request as OpenAI's API has it."""

    model: ModelName
    path: str
    body: bytes
    streaming: bool
    loads: bool = False
    """Whether it only wants the model to be loaded: no prompt is in it."""


def asked_model(body: bytes, known: Collection[ModelName]) -> ModelName:
    """Return the model that a request names; Ollama adds `:latest` to names. Raises RequestFault."""
    return _model(_read(body), known)


def translated(path: str, body: bytes, known: Collection[ModelName]) -> Translated:
    """Return a chat, generate, embed or embeddings request as OpenAI's API has it. Raises RequestFault."""
    ask = _read(body)
    model = _model(ask, known)
    if path.startswith("/api/embed"):
        return _embedding(ask, model, path)
    streaming = ask.stream is not False
    wanted: Json = {"model": model, "stream": streaming, **_settings(ask)}
    if not ask.messages and not ask.prompt:
        wanted |= {"prompt": " ", "max_tokens": 1, "stream": False}
        return _made(model, "/v1/completions", wanted, streaming=False, loads=True)
    if path == "/api/generate" and (ask.raw or ask.suffix):
        wanted |= {"prompt": ask.prompt} | ({"suffix": ask.suffix} if ask.suffix else {})
        return _made(model, "/v1/completions", wanted, streaming=streaming)
    messages = list(ask.messages)
    if path == "/api/generate":
        messages = [{"role": "user", "content": ask.prompt, "images": ask.images}]
        if ask.system:
            messages.insert(0, {"role": "system", "content": ask.system})
    wanted["messages"] = _messages(messages)
    if ask.tools:
        wanted["tools"] = ask.tools
    return _made(model, "/v1/chat/completions", wanted, streaming=streaming)


def _read(body: bytes) -> _Ask:
    try:
        return _ask.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = f"the body is not as Ollama's API has it: {error}"
        raise RequestFault(ErrorCode.INVALID_REQUEST, why) from error


def _model(ask: _Ask, known: Collection[ModelName]) -> ModelName:
    name = ModelName(ask.model or ask.name)
    if not name:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "model is required")
    return name if name in known else ModelName(name.removesuffix(_LATEST))


def _made(model: ModelName, path: str, wanted: Json, *, streaming: bool, loads: bool = False) -> Translated:
    return Translated(
        model=model, path=path, body=msgspec.json.encode(wanted), streaming=streaming, loads=loads
    )


def _embedding(ask: _Ask, model: ModelName, path: str) -> Translated:
    wanted: Json = {"model": model, "input": ask.prompt if path == "/api/embeddings" else ask.input}
    if wanted["input"] in (None, []):
        raise RequestFault(ErrorCode.INVALID_REQUEST, "there is nothing to embed")
    if ask.dimensions:
        wanted["dimensions"] = ask.dimensions
    return _made(model, "/v1/embeddings", wanted, streaming=False)


def _settings(ask: _Ask) -> Json:
    """Return how the answer is to be made."""
    options, found = ask.options or {}, Json()
    for theirs, ours in _OPTIONS.items():
        value = options.get(theirs)
        if value is not None and not (theirs == "num_predict" and value < 0):  # -1 and -2 are without limit
            found.update(dict.fromkeys(ours, value))
    if ask.format == "json":
        found["response_format"] = {"type": "json_object"}
    elif isinstance(ask.format, dict):
        found["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": ask.format},
        }
    if isinstance(ask.think, str):
        found["reasoning_effort"] = ask.think
    elif ask.think is not None:
        found["chat_template_kwargs"] = {"enable_thinking": ask.think}
    if ask.logprobs:
        found |= {"logprobs": True} | ({"top_logprobs": ask.top_logprobs} if ask.top_logprobs else {})
    return found


def _messages(theirs: list[Json]) -> list[Json]:
    """Return messages: images are parts of the content, and calls of tools have ids that answers name."""
    made: list[Json] = []
    open_calls: list[tuple[str, str]] = []
    for number, message in enumerate(theirs):
        role, content = message.get("role", "user"), message.get("content") or ""
        one: Json = {"role": role, "content": content}
        if images := message.get("images"):
            one["content"] = [{"type": "text", "text": content}, *map(_image, images)]
        if calls := message.get("tool_calls"):
            one["tool_calls"] = [_call(call, f"call_{number}_{at}") for at, call in enumerate(calls)]
            open_calls = [(call["id"], call["function"]["name"]) for call in one["tool_calls"]]
        if role == "tool":
            name = message.get("tool_name") or message.get("name")
            named = [call for call in open_calls if call[1] == name] or open_calls
            if named:
                open_calls.remove(named[0])
            one["tool_call_id"] = message.get("tool_call_id") or (named[0][0] if named else f"call_{number}")
        made.append(one)
    return made


def _image(data: str) -> Json:
    url = data if data.startswith("data:") else f"data:{_image_type(data)};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _image_type(data: str) -> str:
    """Return the type of an image by how its base64 begins."""
    known = {"iVBOR": "image/png", "/9j/": "image/jpeg", "R0lG": "image/gif", "UklG": "image/webp"}
    return next((kind for start, kind in known.items() if data.startswith(start)), "image/png")


def _call(call: Json, call_id: str) -> Json:
    function = call.get("function") or {}
    arguments = msgspec.json.encode(function.get("arguments") or {}).decode()
    return {
        "id": call.get("id") or call_id,
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": arguments},
    }
