"""The key of a fleet: one file that a host and the fleet both have, and that nobody else has.

Each proves to the other over TLS 1.3 that it holds the private key, so one file is all that is copied when a
host joins. Ray's own token is derived from it.
"""

import hashlib
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.hosts.files.opening import UnsafeFile, check_own

KEY_FILE = "hosts.pem"
_YEARS = 30


def make_key(path: Path) -> None:
    """Write the key of a new fleet, readable by its owner alone; one that exists is left as it is."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a fleet of poorwill")])
    now = datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.write(certificate.public_bytes(serialization.Encoding.PEM))


def tls_context(path: Path, *, server: bool) -> ssl.SSLContext:
    """Return a context that speaks only to who holds the same key. Raises OperatorFault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the key proves who it is, wherever it is
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        check_own(str(path))
        context.load_cert_chain(path)
        context.load_verify_locations(path)
    except UnsafeFile as error:
        raise _unusable(path, f"it {error.strerror}") from error
    except (OSError, ssl.SSLError) as error:
        raise _unusable(path, str(error.strerror or error)) from error
    return context


def token(path: Path) -> str:
    """Return the token that Ray's processes of this fleet show one another. Raises OperatorFault."""
    try:
        return hashlib.sha256(b"poorwill ray token\n" + path.read_bytes()).hexdigest()
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error


def _unusable(path: Path, why: str) -> OperatorFault:
    return OperatorFault(
        ErrorCode.CONFIG_INVALID,
        f"the fleet's key for hosts, {path}, cannot be used: {why}",
        hint="`poorwill host --head` makes it; copy it to each host, readable by its owner alone",
    )
