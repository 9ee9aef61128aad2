"""What `poorwill doctor` shows. Apart, so that a verb can name the documents and load no driver."""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from poorwill.core.format import size
from poorwill.core.words import Tier
from poorwill.fleet.sweeps.judgement import Sweep
from poorwill.policies.coldstart.report.documents import StorageDocument
from poorwill.policies.placement.devices import DeviceState
from poorwill.policies.placement.refusals import gib
from poorwill.tiers.proof import Proof


class ProofDocument(Struct, frozen=True, kw_only=True):
    """Whether a tier was tried, and works here."""

    tier: Tier
    tried: bool
    works: bool
    why: str
    mend: str
    caution: str


class OrphanDocument(Struct, frozen=True, kw_only=True):
    """Something that exists and that the ledger does not own, or that it owns and nobody serves."""

    replica: str
    generation: int
    tier: Tier | None
    what: str
    image_bytes: int


class MissingDocument(Struct, frozen=True, kw_only=True):
    """Something that the ledger owns and that does not exist."""

    replica: str
    was: str


class SweepDocument(Struct, frozen=True, kw_only=True):
    """What exists, compared with the ledger."""

    orphans: tuple[OrphanDocument, ...]
    unserved: tuple[OrphanDocument, ...]
    missing: tuple[MissingDocument, ...]


def sweep_document(sweep: Sweep) -> SweepDocument:
    """Return a sweep for JSON."""
    return SweepDocument(
        orphans=msgspec.convert(sweep.orphans, tuple[OrphanDocument, ...], from_attributes=True),
        unserved=msgspec.convert(sweep.unserved, tuple[OrphanDocument, ...], from_attributes=True),
        missing=tuple(MissingDocument(replica=owned.replica, was=owned.where()) for owned in sweep.missing),
    )


class DeviceDocument(Struct, frozen=True, kw_only=True):
    """An accelerator of this machine; `used_bytes` is null if NVML does not say."""

    id: str
    index: int
    name: str
    bytes: int
    used_bytes: int | None
    unfit: str
    caution: str


class DoctorDocument(Struct, frozen=True, kw_only=True):
    """What this machine can do."""

    tiers: tuple[ProofDocument, ...]
    storage: StorageDocument | None
    devices: tuple[DeviceDocument, ...] = ()


def device_documents(states: Sequence[DeviceState]) -> tuple[DeviceDocument, ...]:
    """Return devices for JSON."""
    return msgspec.convert(states, tuple[DeviceDocument, ...], from_attributes=True)


def device_lines(states: Sequence[DeviceState], trouble: str) -> list[str]:
    """Return devices for people: `0 GPU-8932...: NVIDIA H200, 139 GiB, 12 GiB in use`."""
    lines = []
    for state in states:
        name = f"{state.name}, " if state.name else ""
        used = "" if state.used_bytes is None else f", {gib(state.used_bytes)} in use"
        wrong = f"; {state.wrong}" if state.wrong else ""
        lines.append(f"{state.index} {state.id}: {name}{gib(state.bytes)}{used}{wrong}")
    return [*lines, trouble] if trouble else lines


def sweep_lines(sweep: Sweep, count: int) -> Iterator[str]:
    """Yield a sweep for people; `count` things were found."""
    for found in sweep.orphans:
        image = f", {size(found.image_bytes)}" if found.image_bytes else ""
        yield f"orphan   {found.replica}: {found.what}{image}"
    for found in sweep.unserved:
        what = f"{found.what}: engine running, nobody serves; poorwill serve takes it over"
        yield f"unserved {found.replica}: {what}"
    for owned in sweep.missing:
        yield f"missing  {owned.replica}: {owned.where()}"
    if not sweep.orphans and not sweep.unserved and not sweep.missing:
        yield f"nothing amiss: processes, snapshots and rented machines found: {count}, all owned"


def proof_lines(proofs: Sequence[Proof]) -> Iterator[str]:
    """Yield proofs for people."""
    for proof in proofs:
        verdict = "works" if proof.works else "fails" if proof.tried else "not tried"
        yield f"{proof.tier:<10} {verdict:<10} {proof.why}"
        if proof.mend and not proof.works:
            yield f"{'':<21} {'to fix it' if proof.tried else 'to have it'}: {proof.mend}"
        if proof.caution:
            yield f"{'':<21} caution: {proof.caution}"
