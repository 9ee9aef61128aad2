"""The one thing the gateway may change in a request: the name of the model, where the engine has another."""

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def renamed(body: bytes, name: str) -> bytes:
    """Return a JSON object with another `model`. Every other value stays as it is, byte for byte.

    What names no model, or is no JSON object, is returned as it came.
    """
    try:
        fields = _fields(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body
    if "model" not in fields:
        return body
    fields["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)
