"""The anatomy of a wake as a tree: groups of phases, phases, and their named parts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from poorwill.core.entries import PhaseSpan
from poorwill.core.words import Phase
from poorwill.policies.coldstart.anatomy import sum_known

PHASE_GROUP: Mapping[Phase, str] = MappingProxyType(
    {
        Phase.PROVISION: "machine",
        Phase.DOWNLOAD: "machine",
        Phase.SPAWN: "process",
        Phase.IMPORTS: "process",
        Phase.CONTEXT: "process",
        Phase.WEIGHTS: "model",
        Phase.COMPILE_HIT: "engine",
        Phase.COMPILE_MISS: "engine",
        Phase.KV_CACHE: "engine",
        Phase.GRAPHS: "engine",
        Phase.WARMUP: "engine",
        Phase.READ_IMAGE: "restore",
        Phase.RESTORE_PROCESS: "restore",
        Phase.RESTORE_DEVICE: "restore",
        Phase.ENGINE_WAKE: "restore",
        Phase.VERIFY: "check",
        Phase.READY: "check",
        Phase.UNATTRIBUTED: "unattributed",
    }
)
"""The upper level of the tree; total over the closed list of phases."""

_NOTES = re.compile(
    r"\d+ B (?:from storage|(?:not )?read ahead|cached before)|expected \d+ B/s|; memory is short"
)
"""What details say of a whole phase; it names no part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One node of the tree: the whole, a group, a phase, or one named part of a phase."""

    name: str
    took_us: int
    bytes_read: int | None
    children: tuple["Branch", ...] = ()


def tree(spans: Sequence[PhaseSpan], name: str = "wake") -> Branch:
    """Return the leaves as a tree: groups, phases, and the parts of a phase that has more than one."""
    groups: dict[str, dict[Phase, list[PhaseSpan]]] = {}
    for span in spans:
        groups.setdefault(PHASE_GROUP[span.phase], {}).setdefault(span.phase, []).append(span)
    branches = []
    for group, phases in groups.items():
        inner = [_phase_branch(phase, parts) for phase, parts in phases.items()]
        branches.append(inner[0] if group == Phase.UNATTRIBUTED else _branch(group, inner))
    return _branch(name, branches)


def _phase_branch(phase: Phase, parts: Sequence[PhaseSpan]) -> Branch:
    named: dict[str, list[PhaseSpan]] = {}
    for part in parts:
        named.setdefault(_NOTES.sub("", part.detail).strip(" ,") or "other", []).append(part)
    leaves = [
        Branch(
            name=detail,
            took_us=sum(part.ended_us - part.began_us for part in same),
            bytes_read=sum_known(part.bytes_read for part in same),
        )
        for detail, same in named.items()
    ]
    branch = _branch(phase, leaves)
    return replace(branch, children=()) if [leaf.name for leaf in leaves] == ["other"] else branch


def _branch(name: str, children: Sequence[Branch]) -> Branch:
    return Branch(
        name=name,
        took_us=sum(child.took_us for child in children),
        bytes_read=sum_known(child.bytes_read for child in children),
        children=tuple(children),
    )
