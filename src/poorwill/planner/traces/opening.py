"""Opens a file of text, plain or compressed with gzip or zstd, told apart by their first bytes."""

import gzip
import io
import sys
from contextlib import AbstractContextManager
from typing import IO, TextIO, cast

from poorwill.core.errors import ErrorCode, OperatorFault

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How a file that a spreadsheet saved as "Unicode text" begins."""


def open_text(path: str) -> AbstractContextManager[TextIO]:
    """Open a file for reading. Bytes that are no UTF-8 become replacement characters.

    Raises OSError; OperatorFault if it is compressed with zstd and no library for that is installed.
    """
    with open(path, "rb") as probe:
        first = probe.read(4)
    encoding = "utf-16" if first[:2] in UTF_16 else "utf-8-sig"
    if first.startswith(GZIP):
        binary = cast("IO[bytes]", gzip.open(path))
    elif first.startswith(ZSTD):
        binary = _open_zstd(path)
    else:
        return open(path, encoding=encoding, errors="replace", newline="")
    return io.TextIOWrapper(binary, encoding=encoding, errors="replace", newline="")


def _open_zstd(path: str) -> IO[bytes]:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{path} is compressed with zstd, and {error.name} is not installed",
            hint="pip install backports.zstd, or decompress it: zstd -d",
        ) from error
    return cast("IO[bytes]", zstd.open(path, "rb"))
