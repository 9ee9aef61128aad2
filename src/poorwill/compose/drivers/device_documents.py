"""Devices as `poorwill doctor` shows them. Apart, so that a verb can name the document and load no driver."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from poorwill.policies.placement.devices import DeviceState
from poorwill.policies.placement.refusals import gib


class DeviceDocument(Struct, frozen=True, kw_only=True):
    """An accelerator of this machine; `used_bytes` is null if NVML does not say."""

    id: str
    index: int
    name: str
    bytes: int
    used_bytes: int | None
    unfit: str
    caution: str


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
