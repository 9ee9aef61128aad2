"""A TLS certificate that is renewed while it is used."""

import os
import ssl
from collections.abc import Sequence

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.ports.log import Log


def tls_context(certificate: str, private_key: str) -> ssl.SSLContext:
    """Return what secures connections. Raises OperatorFault if these are no certificate and its key."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, private_key, password="")
    except OSError as error:  # ssl.SSLError is one
        what = f"{certificate} and {private_key} are no TLS certificate and its key: {_why(error)}"
        hint = "PEM files that poorwill's user can read; the key without a passphrase"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=hint) from error
    return context


class Certificate:
    """A certificate and its key in files; read again when these change, as ACME clients change them."""

    def __init__(self, certificate: str, private_key: str, log: Log) -> None:
        """Read the files. Raises OperatorFault."""
        self._files = certificate, private_key
        self._log = log
        self._seen = self._marks()
        self._context = tls_context(*self._files)

    def context(self) -> ssl.SSLContext:
        """Return what secures a new connection, by the files as they are now if they fit together."""
        marks = self._marks()
        if marks != self._seen:  # a renewal writes one file after the other: the next change is tried again
            self._seen = marks
            try:
                self._context = tls_context(*self._files)
            except OperatorFault as fault:
                self._log.warning("the renewed certificate is not used", why=fault.message)
            else:
                self._log.info("the certificate was renewed", file=self._files[0])
        return self._context

    def _marks(self) -> Sequence[tuple[int, int, int] | None]:
        return [_mark(path) for path in self._files]


def _mark(path: str) -> tuple[int, int, int] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _why(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).replace("_", " ").lower() if isinstance(error, ssl.SSLError) else str(reason)
