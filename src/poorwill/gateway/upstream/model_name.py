"""The one change the gateway makes to a request: the model's name, if the engine knows it by another."""

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def renamed(body: bytes, name: str) -> bytes:
    """Return a JSON object with another `model`. Every other value stays as it is, byte for byte.

    A body that names no model, or is not a JSON object, is returned unchanged.
    """
    try:
        fields = _fields(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body
    if "model" not in fields:
        return body
    fields["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)
