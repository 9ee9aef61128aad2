"""Names files after models and replicas: one name, one file, in one folder."""

import hashlib
from urllib.parse import quote

MOST_BYTES = 200
"""Longest name as it is; a file system takes 255 bytes, and callers add endings such as `.log`."""


def file_name(name: str) -> str:
    """Return the name of a file for a model or replica: printable ASCII without slashes, at most 200 bytes.

    Different names give different files, and none is hidden or leads out of its folder. Ordinary names stay
    readable: only odd characters are written as `%2F`, and a name that is too long ends in its digest.
    """
    encoded = quote(name, safe="", errors="surrogatepass").replace("~", "%7E")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if not encoded or len(encoded) > MOST_BYTES:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]
        return f"{encoded[: MOST_BYTES - 33]}~{digest}"
    return encoded
