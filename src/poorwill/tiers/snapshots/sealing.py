"""Encryption of snapshots at rest: AES-256-GCM for each chunk, through the `cryptography` package.

A snapshot holds prompts, keys and weights. Each gets a key of its own, derived from the operator's key and
a random salt and the file's name (HKDF-SHA256, RFC 5869), so that nonces, which count chunks, never repeat
under one key. A chunk is bound to its snapshot, file and place, the last one says that it is (as in STREAM,
Hoang and others 2015), and the manifest, which lists the files, is signed: nothing can be exchanged,
reordered, added or left out. So a file can be sealed while it is still being written.
"""

import base64
import binascii
import hmac
import os
import struct
import threading
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.extras import install_extra
from poorwill.core.ports.driver import SnapshotRefused
from poorwill.tiers.snapshots.image_files import (
    CHUNK_BYTES,
    WORKERS,
    Chunk,
    Stopped,
    chunks_of,
    punch,
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

    def sealing(self, source: Path, target: Path, *, about: str) -> "Sealing":
        """Begin to seal the files of a directory. Raises OperatorFault."""
        salt = os.urandom(16)
        self.cipher(salt, "")
        return Sealing(sealer=self, source=source, target=target, salt=salt, about=about)

    def open(self, source: Path, *, salt: bytes, about: str) -> "SealedImage":
        """Open a sealed directory. Raises SealBroken if a file is truncated, OSError, OperatorFault."""
        sizes = {path.name: _plain_size(path) for path in source.iterdir()}
        ciphers = {name: self.cipher(salt, name) for name in sizes}
        return SealedImage(directory=source, about=about, ciphers=ciphers, sizes=sizes)

    def cipher(self, salt: bytes, name: str) -> "AESGCM":
        """Return what encrypts one file of one snapshot. Raises OperatorFault."""
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError as error:
            raise OperatorFault(
                ErrorCode.CONFIG_INVALID,
                "encrypted snapshots need the package `cryptography`",
                hint=install_extra("encrypt"),
            ) from error
        info = b"poorwill snapshot\0" + name.encode()
        return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(self.key))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sealing:
    """An image being sealed, a chunk at a time, which leaves a hole where it was in the clear."""

    sealer: Sealer
    source: Path
    target: Path
    salt: bytes
    about: str

    def chunk(self, chunk: Chunk, *, last: bool = False) -> int:
        """Seal one chunk and return the bytes written. Raises OSError."""
        cipher = self.sealer.cipher(self.salt, chunk.name)
        plain = os.open(self.source / chunk.name, os.O_RDWR | os.O_CLOEXEC)
        sealed = os.open(self.target / chunk.name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            data = os.pread(plain, chunk.bytes, chunk.offset)
            data = cipher.encrypt(_nonce(chunk.index), data, _context(self.about, chunk, last=last))
            done = 0
            while done < len(data):  # a full disk takes a part before it refuses
                done += os.pwrite(sealed, data[done:], chunk.index * (CHUNK_BYTES + TAG_BYTES) + done)
            punch(plain, chunk.offset, chunk.bytes)
        finally:
            os.close(plain)
            os.close(sealed)
        return done

    def finish(self, done: Container[Chunk], stop: threading.Event) -> None:
        """Seal all chunks but those that are done. Raises OSError, Stopped."""

        def seal(path: Path) -> None:
            chunks = _plain_chunks(path.name, path.stat().st_size)
            for chunk in chunks:
                if stop.is_set():
                    raise Stopped
                if chunk not in done:
                    self.chunk(chunk, last=chunk is chunks[-1])

        with ThreadPoolExecutor(WORKERS) as pool:
            for job in [pool.submit(seal, path) for path in self.source.iterdir()]:
                job.result()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SealedImage:
    """The files of a sealed snapshot, read a chunk at a time. Implements `image_files.Pieces`."""

    directory: Path
    about: str
    ciphers: Mapping[str, "AESGCM"]
    sizes: Mapping[str, int]
    """Of what is in the files, by name."""

    def read(self, chunk: Chunk, buffer: memoryview) -> None:
        """See `Pieces.read`."""
        from cryptography.exceptions import InvalidTag

        name, last = chunk.name, chunk.offset + chunk.bytes == self.sizes[chunk.name]
        with open(self.directory / name, "rb", buffering=0) as file:
            stored = os.pread(file.fileno(), chunk.bytes + TAG_BYTES, chunk.index * (CHUNK_BYTES + TAG_BYTES))
        try:
            context = _context(self.about, chunk, last=last)
            buffer[: chunk.bytes] = self.ciphers[name].decrypt(_nonce(chunk.index), stored, context)
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


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _context(about: str, chunk: Chunk, *, last: bool) -> bytes:
    return f"{about}\0{chunk.name}\0{chunk.index}\0{last}".encode()


def _nonce(chunk_index: int) -> bytes:
    return struct.pack(">IQ", 0, chunk_index)


def _plain_chunks(name: str, size_bytes: int) -> list[Chunk]:
    """Return a file's chunks; even an empty file has one, so that its absence is noticed."""
    return chunks_of(name, size_bytes) or [Chunk(name=name, index=0, offset=0, bytes=0)]


def _plain_size(path: Path) -> int:
    stored = path.stat().st_size
    size = stored - TAG_BYTES * -(-stored // (CHUNK_BYTES + TAG_BYTES))
    if size < 0:
        raise SealBroken(f"{path.name} is truncated")
    return size
