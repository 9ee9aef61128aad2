"""The two fields of a request's body that the gateway reads: which model, and whether a stream is asked for.

A body is a JSON object or a form. Neither is made into objects: of megabytes, two slices are looked at. All
else passes unseen, byte for byte, but for the model's name if the engine knows it by another.
"""

import re
from collections.abc import Mapping
from typing import Protocol

import msgspec

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.words import ModelName

_LONGEST_NAME = 1024
_MOST_PARTS = 100
_MOST_PART_HEAD = 8 * 1024
_MOST_REPEATED = 65_536
_DISPOSITION = re.compile(rb'(?i)content-disposition:[^\r\n]*;\s*name="?(model|stream)"?\s*(?:;|\r\n|\Z)')
_BOUNDARY = re.compile(rb'(?i);\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))')
_HALF_A_PAIR = re.compile(
    rb"(?<!\\)(?:\\\\)*\\u(?:[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|[dD][c-fC-F])"
)


def refusal(message: str) -> RequestFault:
    """Return the fault of a body that cannot be understood."""
    return RequestFault(ErrorCode.INVALID_REQUEST, message)


class _Fields(msgspec.Struct):
    """The fields as nearly all clients send them. If a key comes twice the last one counts, as in engines."""

    model: str | None = None
    stream: bool | None = None


class _Slices(msgspec.Struct):
    """The same as slices of the body, of whatever type."""

    model: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()
    stream_options: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Fields).decode
_slices = msgspec.json.Decoder(_Slices).decode
_text = msgspec.json.Decoder(str).decode
_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_fields(body: bytes, content_type: bytes) -> tuple[ModelName, bool]:
    """Return the model, empty if the body names none, and whether a stream is asked for.

    The body is not empty. Raises RequestFault.
    """
    if content_type[:19].lower() == b"multipart/form-data":
        return read_form(body, form_spans(body, content_type))
    try:
        fields = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_slices(body)
    if fields.model and len(fields.model) <= _LONGEST_NAME:
        return ModelName(fields.model), fields.stream is True
    return _read_slices(body)


def _read_slices(body: bytes) -> tuple[ModelName, bool]:
    """Do the same for a body of another shape, or say what is wrong with it. Raises RequestFault."""
    try:
        fields = _slices(body)
        model = _model_name(bytes(fields.model))
    except msgspec.ValidationError as error:
        raise refusal("the body must be a JSON object that names a `model`") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if _HALF_A_PAIR.search(body):
            raise refusal(
                "the body is not JSON: it has half of a surrogate pair, such as an emoji that was cut in two"
            ) from error
        raise refusal(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise refusal("the body is nested too deeply") from error
    return model, bytes(fields.stream) == b"true"


def _model_name(raw: bytes) -> ModelName:
    if raw in (b"", b"null"):
        return ModelName("")
    name = ""
    if raw[:1] == b'"' and len(raw) <= _LONGEST_NAME:
        name = _text(raw)
    if not name:
        raise refusal(f"`model` must be a string of 1 to {_LONGEST_NAME} bytes")
    return ModelName(name)


class Bytes(Protocol):
    """Bytes in memory or in a file."""

    def __getitem__(self, where: slice, /) -> bytes:
        """Return some of them."""
        ...

    def find(self, what: bytes, begin: int, end: int | None = None, /) -> int:
        """Return where something is, -1 if nowhere."""
        ...


def form_spans(body: Bytes, content_type: bytes) -> Mapping[bytes, tuple[int, int]]:
    """Return where the values of `model` and `stream` are in a form. Raises RequestFault."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise refusal("the form has no boundary in its Content-Type")
    boundary = b"--" + (found[1] or found[2])
    if body[0 : len(boundary) + 2] != boundary + b"\r\n":
        raise refusal("the form does not begin with its boundary")
    return _form_spans(body, boundary)


def read_form(body: Bytes, spans: Mapping[bytes, tuple[int, int]]) -> tuple[ModelName, bool]:
    """Return the model, empty if none is named, and whether a stream is asked for. Raises RequestFault."""
    begin, end = spans.get(b"model", (0, 0))
    stream_from, stream_to = spans.get(b"stream", (0, 0))
    try:
        name = body[begin : min(end, begin + _LONGEST_NAME)].decode()
    except UnicodeDecodeError as error:
        raise refusal("the form's `model` is not UTF-8") from error
    return ModelName(name), body[stream_from:stream_to].lower() == b"true"


def _form_spans(body: Bytes, boundary: bytes) -> dict[bytes, tuple[int, int]]:
    """Return where the values of our fields are. Raises RequestFault if the form has too many parts."""
    spans: dict[bytes, tuple[int, int]] = {}
    at = len(boundary) + 2
    for _ in range(_MOST_PARTS):
        begin = body.find(b"\r\n\r\n", at, at + _MOST_PART_HEAD)
        end = body.find(b"\r\n" + boundary, begin) if begin >= 0 else -1
        if end < 0:
            return spans
        named = _DISPOSITION.search(body[at : begin + 2])
        if named is not None:
            spans[named[1].lower()] = (min(begin + 4, end), end)  # an empty value shares its line's end
        at = end + len(boundary) + 4
        if body[at - 2 : at] != b"\r\n":
            return spans
    raise refusal(f"the form has more than {_MOST_PARTS} parts")


def asking_usage(body: bytes) -> bytes:
    """Return the body of a streamed request with a wish for usage; the same one if it has a wish of its own.

    The body is a JSON object with a key at least: it has been read. Everything else stays as it is.
    """
    if b'"stream_options"' in body and bytes(_slices(body).stream_options) not in (b"", b"null"):
        return body
    at = body.find(b"{") + 1
    return b'%b"stream_options":{"include_usage":true},%b' % (body[:at], body[at:])


def with_values(body: bytes, values: Mapping[str, object], defaults: Mapping[str, object]) -> bytes:
    """Return a JSON body with these values, and with those defaults that it says nothing about.

    Another body is returned unchanged.
    """
    try:
        fields = _top_level(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body
    wanted = {name: value for name, value in defaults.items() if name not in fields} | dict(values)
    return msgspec.json.encode(fields | {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in wanted.items()})


def renamed(body: bytes, name: str) -> bytes:
    """Return the body with another `model`. Everything else stays as it is, byte for byte.

    A body that names no model, or is neither a JSON object nor a form, is returned unchanged.
    """
    if body.startswith(b"--"):
        begin, end = _form_spans(body, body.partition(b"\r\n")[0]).get(b"model", (0, 0))
        return body[:begin] + name.encode() + body[end:] if end else body
    try:
        raw = bytes(_slices(body).model)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body
    if not raw:
        return body
    wanted = msgspec.json.encode(name)
    if raw == wanted:
        return body
    spans = [
        found.span(1) for found in re.finditer(rb'(?<!\\)"model"\s*:\s*(' + re.escape(raw) + rb")", body)
    ]
    if len(spans) == 1:
        begin, end = spans[0]
        return body[:begin] + wanted + body[end:]
    # The same text stands in a nested object as well, or the key is written with escapes.
    for begin, end in dict.fromkeys((*spans[:2], *spans[-2:])):
        changed = body[:begin] + wanted + body[end:]
        if bytes(_slices(changed).model) == wanted:
            return changed
    if len(body) > _MOST_REPEATED:
        return body
    fields = _top_level(body)
    fields["model"] = msgspec.Raw(wanted)
    return msgspec.json.encode(fields)
