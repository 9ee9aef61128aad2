"""A snapshot's manifest: what it is an image of, what it needs to be woken, and the check sums of its files.

`mismatches` is the only judge of whether a snapshot fits; each reason has its own sentence.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import msgspec

from poorwill.core.launch import Launch, Parked
from poorwill.core.words import ModelName, ReplicaId, Tier

FORMAT = 3

NVIDIA = "/proc/driver/nvidia"

_SHOWN = 12
"""Characters of a digest that are shown: enough to tell two apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of an image. `checks` holds one CRC-32 for each chunk of its stored bytes."""

    name: str
    bytes: int
    checks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What of the machine an image of a process depends on."""

    kernel: str
    cpu_flags: tuple[str, ...]
    gpu_driver: str = "none"
    gpus: tuple[str, ...] = ()
    """Model and UUID of each: device memory is restored to the same GPUs only."""

    @classmethod
    def read(cls) -> "HostFacts":
        """Read this machine's."""
        flags: tuple[str, ...] = ()
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    flags = tuple(sorted(value.split()))
                    break
        return cls(
            kernel=os.uname().release,
            cpu_flags=flags,
            gpu_driver=_gpu_driver(),
            gpus=tuple(_gpus()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything about a snapshot but its bytes."""

    format: int = FORMAT
    replica: ReplicaId
    model: ModelName
    generation: int
    driver: str
    tier: Tier
    tool: str
    """The program that wrote it, with its version: `criu 4.2.1`."""
    created_us: int
    engine: str
    digest: str
    start_hash: str
    """Of what the engine was started with; see `start_hash_of`."""
    host: str
    port: int
    machine: HostFacts
    pid: int = 0
    ids: tuple[int, ...] = ()
    """Every process and thread id of the image; all must be free to restore it."""
    log_path: str = ""
    """Its log, if its standard output or error still pointed there; else empty."""
    asleep: bool = False
    """Whether the engine was in its own sleep, from which it must be woken after the restore."""
    extra: Mapping[str, str] = field(default_factory=dict)
    sealed: str = ""
    """The salt its key was derived with, hexadecimal; empty: not encrypted."""
    image_bytes: int = 0
    files: tuple[FileRecord, ...] = ()

    def parked(self) -> Parked:
        """Return the replica that is parked by this snapshot."""
        return Parked(
            replica=self.replica, generation=self.generation, tier=self.tier, image_bytes=self.image_bytes
        )


def start_hash_of(launch: Launch) -> str:
    """Return the digest of an engine's arguments, environment and working directory."""
    started = [list(launch.argv), sorted(launch.env.items()), launch.cwd]
    return hashlib.sha256(json.dumps(started).encode()).hexdigest()


def mismatches(
    manifest: Manifest, launch: Launch, *, tool: str, machine: HostFacts, generation: int
) -> list[str]:
    """Return every reason why the snapshot must not be woken for `launch` here; empty if it may."""
    reasons = []

    def compare(what: str, then: object, now: object) -> None:
        if then != now:
            reasons.append(f"{what}: the snapshot has {then}, now it is {now}")

    compare("snapshot format", manifest.format, FORMAT)
    compare("replica", manifest.replica, launch.replica)
    compare("generation", manifest.generation, generation)
    compare("engine", manifest.engine, launch.engine)
    if manifest.start_hash != start_hash_of(launch):
        reasons.append("engine arguments: the engine would be started differently now")
    compare("port", manifest.port, launch.port)
    compare("address", manifest.host, launch.host)
    if manifest.digest != launch.digest:
        then, now = manifest.digest[:_SHOWN] or "none", launch.digest[:_SHOWN] or "none"
        reasons.append(f"model digest: the snapshot has {then}, now it is {now}")
    compare("tool", manifest.tool, tool)
    compare("kernel", manifest.machine.kernel, machine.kernel)
    compare("GPU driver", manifest.machine.gpu_driver, machine.gpu_driver)
    compare("GPUs", _listed(manifest.machine.gpus), _listed(machine.gpus))
    had, has = set(manifest.machine.cpu_flags), set(machine.cpu_flags)
    if had != has:
        gone, new = " ".join(sorted(had - has)) or "none", " ".join(sorted(has - had)) or "none"
        reasons.append(f"CPU flags: gone since the snapshot: {gone}; new: {new}")
    return reasons


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _gpu_driver() -> str:
    """Return the NVIDIA kernel driver's version, which the kernel tells without any library."""
    try:
        with open(f"{NVIDIA}/version", encoding="utf-8") as file:
            words = file.readline().split()
    except OSError:
        return "none"
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def _gpus() -> Iterator[str]:
    try:
        buses = sorted(os.listdir(f"{NVIDIA}/gpus"))
    except OSError:
        return
    for bus in buses:
        about = {}
        with suppress(OSError), open(f"{NVIDIA}/gpus/{bus}/information", encoding="utf-8") as file:
            for line in file:
                name, _, value = line.partition(":")
                about[name.strip()] = value.strip()
        yield f"{about.get('Model', 'unknown')} {about.get('GPU UUID', bus)}"


class Signer(Protocol):
    """Signs manifests with an operator's key; see `sealing.Sealer`."""

    def sign(self, manifest: bytes, salt: str) -> str:
        """Return a manifest's signature."""
        ...

    def signed(self, manifest: bytes, salt: str, signature: str) -> bool:
        """Return whether a signature is this key's."""
        ...


def encode(manifest: Manifest, signer: Signer | None = None) -> bytes:
    """Return the manifest as JSON with a check sum over itself, signed if there is a key."""
    body = json.dumps(asdict(manifest), sort_keys=True)
    signature = signer.sign(body.encode(), manifest.sealed) if signer else ""
    envelope = {"manifest": body, "crc32": zlib.crc32(body.encode()), "signature": signature}
    return json.dumps(envelope).encode()


def decode(data: bytes, signer: Signer | None = None) -> Manifest:
    """Read what `encode` wrote. Raises ValueError with the reason.

    With a key, it must have been written with that key, for an image that is encrypted.
    """
    envelope: Any = json.loads(data)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("manifest"), str):
        raise ValueError("not a manifest")
    body = envelope["manifest"].encode()
    if envelope.get("crc32") != zlib.crc32(body):
        raise ValueError("its check sum is wrong")
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if signer is None:
        return manifest
    if not manifest.sealed:
        raise ValueError("the snapshot is not encrypted, though a key is configured")
    if not signer.signed(body, manifest.sealed, str(envelope.get("signature", ""))):
        raise ValueError("another key, or damage: its signature is not of the configured key")
    return manifest
