"""Which column of a trace means what: the layouts that are known, and the user's own with --columns.

Names are compared without case, spaces, underscores and dashes, so `Request tokens` is `request_tokens`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.hosts.files.traces.instants import UNITS


class Role(StrEnum):
    """What a column tells of a request."""

    ARRIVAL = "arrival"
    END = "end"
    SERVICE = "service"
    PROMPT = "prompt_tokens"
    OUTPUT = "output_tokens"
    MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnUse:
    """A column and the unit or zone that is stated for it."""

    column: str
    unit: str = ""
    zone: ZoneInfo | None = None
    stated: bool = False
    """Whether the user said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLayout:
    """How one kind of file names its columns."""

    name: str
    needs: tuple[str, ...]
    """Columns without which it is not this layout; `a|b` needs one of the two."""
    roles: Mapping[Role, str]
    """Columns by role, alternatives separated by `|`; those that a file lacks are left out."""
    arrival_unit: str = ""
    """The unit its publisher documents."""
    service_unit: str = "s"
    stamped_at_end: bool = False
    """Whether a row's time is the request's end, so that it arrived its length earlier."""
    note: str = ""


TOKENS: Mapping[Role, str] = MappingProxyType(
    {
        Role.PROMPT: "prompt_tokens|usage.prompt_tokens|usage.input_tokens|input_tokens",
        Role.OUTPUT: "completion_tokens|output_tokens|usage.completion_tokens|usage.output_tokens",
        Role.MODEL: "model|model_name",
    }
)
ENDED = "a line's time is the request's end: it arrived its request_time earlier"

LAYOUTS: Sequence[TraceLayout] = (
    TraceLayout(
        name="poorwill",
        needs=("arrival_s",),
        roles={Role.ARRIVAL: "arrival_s", Role.SERVICE: "service_s", **TOKENS},
        arrival_unit="s",
    ),
    TraceLayout(
        name="azure",
        needs=("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        roles={Role.ARRIVAL: "timestamp", Role.PROMPT: "contexttokens", Role.OUTPUT: "generatedtokens"},
    ),
    TraceLayout(
        name="burstgpt",
        needs=("Timestamp", "Request tokens", "Response tokens"),
        roles={
            Role.ARRIVAL: "timestamp",
            Role.SERVICE: "elapsed time",
            Role.PROMPT: "request tokens",
            Role.OUTPUT: "response tokens",
            Role.MODEL: "model",
        },
        arrival_unit="s",
    ),
    TraceLayout(
        name="litellm",
        needs=("startTime", "endTime"),
        roles={Role.ARRIVAL: "starttime", Role.END: "endtime", **TOKENS},
    ),
    TraceLayout(
        name="mooncake",
        needs=("timestamp", "input_length", "output_length", "hash_ids"),
        roles={Role.ARRIVAL: "timestamp", Role.PROMPT: "input_length", Role.OUTPUT: "output_length"},
        arrival_unit="ms",
    ),
    TraceLayout(
        name="token lengths",
        needs=("timestamp", "input_length", "output_length"),
        roles={Role.ARRIVAL: "timestamp", Role.PROMPT: "input_length", Role.OUTPUT: "output_length"},
    ),
    TraceLayout(
        name="openai",
        needs=("created|created_at", "usage.total_tokens|usage.prompt_tokens|usage.input_tokens"),
        roles={Role.ARRIVAL: "created|created_at", **TOKENS},
    ),
    TraceLayout(
        name="sharegpt",
        needs=("conversations|messages", "timestamp|time|created_at|create_time"),
        roles={Role.ARRIVAL: "timestamp|time|created_at|create_time", **TOKENS},
    ),
    TraceLayout(
        name="nginx",
        needs=("time_local|time_iso8601|msec", "request_time"),
        roles={
            Role.ARRIVAL: "msec|time_iso8601|time_local",
            Role.SERVICE: "request_time",
            Role.MODEL: "model",
        },
        stamped_at_end=True,
        note=ENDED,
    ),
)
LOG_LAYOUTS: Mapping[str, TraceLayout] = MappingProxyType(
    {
        "nginx": next(layout for layout in LAYOUTS if layout.name == "nginx"),
        "vllm": TraceLayout(
            name="vllm", needs=("time",), roles={Role.ARRIVAL: "time", Role.END: "end", Role.MODEL: "model"}
        ),
        "llama-server": TraceLayout(
            name="llama-server",
            needs=("time",),
            roles={Role.ARRIVAL: "time", Role.SERVICE: "service_ms", **TOKENS},
            arrival_unit="s",
            service_unit="ms",
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of one file by role."""

    layout: str
    roles: Mapping[Role, ColumnUse]
    stamped_at_end: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """The names that a file has, and how to find one of them."""

    names: Sequence[str]
    by_key: dict[str, str] = field(default_factory=dict)

    def find(self, wanted: str) -> str | None:
        """Return the column for `a|b`; a nested one is found by the end of its path as well."""
        if not self.by_key:
            for name in sorted(self.names, key=lambda name: name.count("."), reverse=True):
                parts = name.split(".")
                for start in range(len(parts)):  # a shallower column overwrites a deeper one
                    self.by_key[_key(".".join(parts[start:]))] = name
        for one in wanted.split("|"):
            if (found := self.by_key.get(_key(one))) is not None:
                return found
        return None


def _key(name: str) -> str:
    return re.sub(r"[^\w.]|_", "", name.casefold())


def read_mapping(text: str) -> Mapping[Role, ColumnUse]:
    """Read `arrival=ts:ms,service=took,model=name`. Raises RequestFault.

    After a colon stands a unit (`s`, `ms`, `us`, `ns`) or, for dates without a zone, a zone.
    """
    uses = {}
    for part in text.split(","):
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or role not in set(Role) or not column:
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"--columns {part!r} is not ROLE=COLUMN",
                hint=f"such as arrival=ts:ms,service=took; roles: {', '.join(Role)}",
            )
        uses[Role(role)] = _use(column)
    return uses


def _use(column: str) -> ColumnUse:
    name, _, told = column.rpartition(":")
    if not name:
        return ColumnUse(column=column, stated=True)
    if told in UNITS:
        return ColumnUse(column=name, unit=told, stated=True)
    try:
        return ColumnUse(column=name, zone=ZoneInfo(told), stated=True)
    except (ZoneInfoNotFoundError, ValueError):
        return ColumnUse(column=column, stated=True)  # the colon is part of the column's name


def find_columns(path: str, shape: str, names: Sequence[str], mapping: Mapping[Role, ColumnUse]) -> Columns:
    """Return what the columns of a file mean. Raises OperatorFault, naming what was found and is needed."""
    found = ColumnNames(names)
    layout = LOG_LAYOUTS.get(shape) or next((one for one in LAYOUTS if _fits(one, found)), None)
    missing = [use.column for use in mapping.values() if found.find(use.column) is None]
    if missing or (layout is None and Role.ARRIVAL not in mapping):
        raise _unknown(path, names, missing)
    roles = _known_roles(layout, found) if layout else {}
    for role, use in mapping.items():
        roles[role] = ColumnUse(
            column=found.find(use.column) or use.column,
            unit=use.unit or _named_unit(use.column, role),
            zone=use.zone,
            stated=bool(use.unit),
        )
    return Columns(
        layout=layout.name if layout else "--columns",
        roles=roles,
        stamped_at_end=layout.stamped_at_end if layout else False,
        note=layout.note if layout else "",
    )


def _known_roles(layout: TraceLayout, found: ColumnNames) -> dict[Role, ColumnUse]:
    units = {Role.ARRIVAL: layout.arrival_unit, Role.SERVICE: layout.service_unit}
    return {
        role: ColumnUse(column=name, unit=units.get(role, ""))
        for role, wanted in layout.roles.items()
        if (name := found.find(wanted)) is not None
    }


def _fits(layout: TraceLayout, found: ColumnNames) -> bool:
    return all(found.find(need) is not None for need in layout.needs)


def _named_unit(column: str, role: Role) -> str:
    """Return the unit that a column's name ends in; lengths without one are seconds."""
    ending = re.search(r"_(s|ms|us|ns)$", column)
    return ending.group(1) if ending else "s" if role is Role.SERVICE else ""


def _unknown(path: str, names: Sequence[str], missing: Sequence[str]) -> OperatorFault:
    what = f"has no column {' or '.join(missing)}" if missing else "has no known layout"
    known = "; ".join(f"{one.name}: {', '.join(one.needs)}" for one in LAYOUTS)
    return OperatorFault(
        ErrorCode.CONFIG_INVALID,
        f"{path} {what}; its columns: {', '.join(names[:20]) or 'none'}",
        hint=f"--columns arrival=NAME says which is which; known layouts need {known}",
    )
