"""Encryption of snapshots at rest: AES-256-GCM for each chunk, through the `cryptography` package.

A snapshot holds prompts, keys and weights. Each gets a key of its own, derived from the operator's key and
a random salt (HKDF-SHA256, RFC 5869), so that nonces, which count files and chunks, never repeat under one
key. A chunk is bound to its snapshot, file and place, and the manifest, which lists the files, is signed:
nothing can be exchanged, reordered, added or left out.
"""

import base64
import binascii
import hmac
import os
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.tiers.snapshots.image_files import CHUNK_BYTES, WORKERS, Stopped, sync_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_Work = Callable[["AESGCM", int, Path, Path, str, threading.Event], None]

TAG_BYTES = 16
KEY_BYTES = 32


class SealBroken(Exception):
    """A chunk does not decrypt: another key, or damage."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sealer:
    """Seals and unseals the files of a snapshot with an operator's key."""

    key: bytes

    @classmethod
    def from_text(cls, text: str, *, source: str) -> "Sealer":
        """Read a key of 32 bytes in base64 or hexadecimal. Raises OperatorFault."""
        for decode in (bytes.fromhex, _base64):
            try:
                key = decode(text.strip())
            except (ValueError, binascii.Error):
                continue
            if len(key) == KEY_BYTES:
                return cls(key=key)
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{source} holds no key of {KEY_BYTES} bytes in base64 or hexadecimal",
            hint="make one: head -c 32 /dev/urandom | base64",
        )

    def sign(self, manifest: bytes, salt: str) -> str:
        """Return what only this key's holder can write beside a manifest: HMAC-SHA256, hexadecimal."""
        own = hmac.digest(self.key, b"poorwill manifest\0" + salt.encode(), "sha256")
        return hmac.digest(own, manifest, "sha256").hex()

    def signed(self, manifest: bytes, salt: str, signature: str) -> bool:
        """Return whether this key's holder wrote the manifest."""
        return hmac.compare_digest(self.sign(manifest, salt).encode(), signature.encode())

    def seal(self, source: Path, target: Path, *, salt: bytes, about: str, stop: threading.Event) -> None:
        """Encrypt every file of `source` into `target`, synced. Raises OSError, Stopped, OperatorFault."""
        self._each(_seal_file, source, target, salt, about, stop)

    def unseal(self, source: Path, target: Path, *, salt: bytes, about: str, stop: threading.Event) -> None:
        """Decrypt every file of `source` into `target`. Raises SealBroken, OSError, Stopped."""
        self._each(_unseal_file, source, target, salt, about, stop)

    def _each(
        self,
        work: "_Work",
        source: Path,
        target: Path,
        salt: bytes,
        about: str,
        stop: threading.Event,
    ) -> None:
        cipher = self._cipher(salt)
        with ThreadPoolExecutor(WORKERS) as pool:
            jobs = [
                pool.submit(work, cipher, number, path, target / path.name, about, stop)
                for number, path in enumerate(sorted(source.iterdir()))
            ]
            for job in jobs:
                job.result()

    def _cipher(self, salt: bytes) -> "AESGCM":
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError as error:
            raise OperatorFault(
                ErrorCode.CONFIG_INVALID,
                "encrypted snapshots need the package `cryptography`",
                hint="pip install 'poorwill[encrypt]'",
            ) from error
        derive = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"poorwill snapshot")
        return AESGCM(derive.derive(self.key))


def new_salt() -> bytes:
    """Return a salt for one snapshot."""
    return os.urandom(16)


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _context(about: str, name: str, index: int, size_bytes: int) -> bytes:
    return f"{about}\0{name}\0{index}\0{size_bytes}".encode()


def _nonce(file_number: int, chunk_index: int) -> bytes:
    return struct.pack(">IQ", file_number, chunk_index)


def _plain_chunks(size_bytes: int) -> list[int]:
    """Return the sizes of a file's chunks; even an empty file has one, so that its absence is noticed."""
    whole, rest = divmod(size_bytes, CHUNK_BYTES)
    return [CHUNK_BYTES] * whole + ([rest] if rest or not whole else [])


def _seal_file(
    cipher: "AESGCM", number: int, source: Path, target: Path, about: str, stop: threading.Event
) -> None:
    size = source.stat().st_size
    with source.open("rb") as plain, target.open("wb") as sealed:
        for index, count in enumerate(_plain_chunks(size)):
            if stop.is_set():
                raise Stopped
            context = _context(about, source.name, index, size)
            sealed.write(cipher.encrypt(_nonce(number, index), plain.read(count), context))
    sync_file(target)


def _unseal_file(
    cipher: "AESGCM", number: int, source: Path, target: Path, about: str, stop: threading.Event
) -> None:
    from cryptography.exceptions import InvalidTag

    stored = source.stat().st_size
    size = stored - TAG_BYTES * -(-stored // (CHUNK_BYTES + TAG_BYTES))
    if size < 0:
        raise SealBroken(f"{source.name} is truncated")
    with source.open("rb") as sealed, target.open("wb") as plain:
        for index, count in enumerate(_plain_chunks(size)):
            if stop.is_set():
                raise Stopped
            context = _context(about, source.name, index, size)
            try:
                plain.write(cipher.decrypt(_nonce(number, index), sealed.read(count + TAG_BYTES), context))
            except (InvalidTag, ValueError) as error:
                raise SealBroken(f"{source.name} does not decrypt: another key, or damage") from error
