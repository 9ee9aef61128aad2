"""The tables of `fleet.toml` in the order of the documentation, and which key belongs in which."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from poorwill.config.fleet_fields import FLEET, GATEWAY, RATE, SPEND
from poorwill.config.model_fields import MODEL
from poorwill.config.tables import Group

MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table of the file."""

    title: str
    header: str
    group: Group
    doc: str


SECTIONS = (
    Section(
        title="models",
        header="[models.NAME]",
        group=MODEL,
        doc="One table for each model; NAME is what clients write in `model=`. Names with dots or "
        'slashes stand in quotes: `[models."org/model-7b"]`.',
    ),
    Section(
        title="defaults",
        header="[defaults]",
        group=MODEL,
        doc="Any key of `[models.NAME]`, for every model that does not set it itself. The tables "
        "`hold`, `env`, `options` and `phase_limits_s` are completed key by key, everything else is "
        "replaced.",
    ),
    Section(title="fleet", header="[fleet]", group=FLEET, doc="The fleet as a whole."),
    Section(
        title="gateway",
        header="[gateway]",
        group=GATEWAY,
        doc="The two listeners, and what they accept.",
    ),
    Section(
        title="rates",
        header="[[rates]]",
        group=RATE,
        doc="What a replica's time costs. The rate that names the most (replica, driver, model) holds, "
        "and of several the one that took effect last. A stretch of time that crosses a change is priced "
        "in parts; what the ledger has priced, a later configuration does not change. Without rates the "
        "bill counts seconds only.",
    ),
    Section(
        title="spend",
        header="[spend]",
        group=SPEND,
        doc="The spend breaker. When a limit is reached wakes stop and requests get `spend_limit`. Amounts "
        "are in the currency of the rates, which must all have the same.",
    ),
)

TITLES = tuple(section.title for section in SECTIONS)

WRITTEN_IN: Mapping[str, str] = MappingProxyType(
    {
        one.key: "[models.NAME] or [defaults]" if section.group is MODEL else section.header
        for section in reversed(SECTIONS)
        for one in section.group.fields
    }
)
