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
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.ports.driver import SnapshotRefused
from poorwill.tiers.snapshots.image_files import (
    CHUNK_BYTES,
    WORKERS,
    Chunk,
    Stopped,
    chunks_of,
    sync_file,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TAG_BYTES = 16
KEY_BYTES = 32


class SealBroken(SnapshotRefused):
    """A sealed image is not what was sealed: another key, or damage."""


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
        cipher = self._cipher(salt)
        with ThreadPoolExecutor(WORKERS) as pool:
            jobs = [
                pool.submit(_seal_file, cipher, number, path, target / path.name, about, stop)
                for number, path in enumerate(sorted(source.iterdir()))
            ]
            for job in jobs:
                job.result()

    def open(self, source: Path, *, salt: bytes, about: str) -> "SealedImage":
        """Open a sealed directory. Raises SealBroken if a file is truncated, OSError, OperatorFault."""
        names = {path.name: number for number, path in enumerate(sorted(source.iterdir()))}
        sizes = {name: _plain_size(source / name) for name in names}
        return SealedImage(
            directory=source, about=about, cipher=self._cipher(salt), numbers=names, sizes=sizes
        )

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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SealedImage:
    """The files of a sealed snapshot, read a chunk at a time. Implements `image_files.Pieces`."""

    directory: Path
    about: str
    cipher: "AESGCM"
    numbers: Mapping[str, int]
    sizes: Mapping[str, int]
    """Of what is in the files, by name."""

    def read(self, chunk: Chunk, buffer: memoryview) -> None:
        """See `Pieces.read`."""
        from cryptography.exceptions import InvalidTag

        name, size = chunk.name, self.sizes[chunk.name]
        with open(self.directory / name, "rb", buffering=0) as file:
            stored = os.pread(file.fileno(), chunk.bytes + TAG_BYTES, chunk.index * (CHUNK_BYTES + TAG_BYTES))
        nonce, context = (
            _nonce(self.numbers[name], chunk.index),
            _context(self.about, name, chunk.index, size),
        )
        try:
            buffer[: chunk.bytes] = self.cipher.decrypt(nonce, stored, context)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(f"{name} does not decrypt: another key, or damage") from error

    def unseal(
        self, names: Iterable[str], target: Path, stop: threading.Event, *, only: Iterable[int] | None = None
    ) -> None:
        """Decrypt files into `target`; holes are left where no chunk in `only` is.

        Raises SealBroken, OSError, Stopped.
        """

        def one(name: str) -> None:
            buffer = memoryview(bytearray(CHUNK_BYTES))
            wanted = None if only is None else set(only)
            with open(target / name, "wb", buffering=0) as plain:
                plain.truncate(self.sizes[name])
                for chunk in _plain_chunks(name, self.sizes[name]):
                    if stop.is_set():
                        raise Stopped
                    if wanted is None or chunk.index in wanted:
                        self.read(chunk, buffer)
                        os.pwrite(plain.fileno(), buffer[: chunk.bytes], chunk.offset)

        with ThreadPoolExecutor(WORKERS) as pool:
            for job in [pool.submit(one, name) for name in names]:
                job.result()


def new_salt() -> bytes:
    """Return a salt for one snapshot."""
    return os.urandom(16)


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _context(about: str, name: str, index: int, size_bytes: int) -> bytes:
    return f"{about}\0{name}\0{index}\0{size_bytes}".encode()


def _nonce(file_number: int, chunk_index: int) -> bytes:
    return struct.pack(">IQ", file_number, chunk_index)


def _plain_chunks(name: str, size_bytes: int) -> list[Chunk]:
    """Return a file's chunks; even an empty file has one, so that its absence is noticed."""
    return chunks_of(name, size_bytes) or [Chunk(name=name, index=0, offset=0, bytes=0)]


def _plain_size(path: Path) -> int:
    stored = path.stat().st_size
    size = stored - TAG_BYTES * -(-stored // (CHUNK_BYTES + TAG_BYTES))
    if size < 0:
        raise SealBroken(f"{path.name} is truncated")
    return size


def _seal_file(
    cipher: "AESGCM", number: int, source: Path, target: Path, about: str, stop: threading.Event
) -> None:
    size = source.stat().st_size
    with source.open("rb") as plain, target.open("wb") as sealed:
        for chunk in _plain_chunks(source.name, size):
            if stop.is_set():
                raise Stopped
            context = _context(about, source.name, chunk.index, size)
            sealed.write(cipher.encrypt(_nonce(number, chunk.index), plain.read(chunk.bytes), context))
    sync_file(target)
