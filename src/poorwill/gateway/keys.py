"""Who is let in: a key is checked as soon as a request's head is complete, before its body is read."""

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.ports.keys import KeyRing


def key_name(keys: KeyRing, credential: bytes, *, public: bool) -> str:
    """Return the name of the key a request brought, empty if none is configured.

    Raises RequestFault(UNAUTHENTICATED), also if the listener is `public` and the last key was
    forgotten while it served. The secret appears in no message.
    """
    if not keys.required:
        if public:
            raise RequestFault(
                ErrorCode.UNAUTHENTICATED, "no API key is configured, which this public address needs"
            )
        return ""
    if not credential:
        raise RequestFault(
            ErrorCode.UNAUTHENTICATED,
            "an API key is needed: send `Authorization: Bearer KEY` or `x-api-key: KEY`",
        )
    name = keys.name_of(credential)
    if name is None:
        raise RequestFault(ErrorCode.UNAUTHENTICATED, "the API key is not known here")
    return name
