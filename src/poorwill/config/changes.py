"""What another configuration changes about a fleet that is being served, and what has to wait for a restart.

Pure: two configurations in, one list of changes out. Nothing that is equal in both is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from poorwill.config.file_keys import file_tables
from poorwill.config.values.containers import DeclaredKey
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import ModelName, Tier

FOLLOWED_KEYS = frozenset(
    {
        "fleet.on_exit",
        "fleet.exit_s",
        "fleet.memory",
        "fleet.reload_on_change",
        "fleet.reap_orphans",
        "gateway.hosts",
        "gateway.paths",
        "gateway.max_upload",
        "gateway.cors_origins",
        "gateway.heartbeat_s",
        "gateway.commit_after_s",
        "gateway.interim_agents",
        "gateway.patient_agents",
        "gateway.patience_s",
        "gateway.max_body",
        "gateway.max_header",
        "gateway.max_headers",
        "gateway.pass_credentials",
        "gateway.max_requests_per_key",
        "gateway.head_timeout_s",
        "gateway.body_timeout_s",
        "gateway.idle_timeout_s",
        "gateway.upstream_timeout_s",
        "gateway.max_request_s",
    }
)
"""What a running poorwill follows, of `[fleet]` and `[gateway]`. All else is what its sockets, its ledger and
its snapshots were opened with. So are, for a model, `cloud`, `hosted` of a bridge, whether it is in a virtual
machine, and the engine there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetChange:
    """From one configuration to another."""

    settings: FleetSettings
    """What is in force from now on: the new configuration without what has to wait for a restart."""
    added: Sequence[ModelSettings] = ()
    removed: Sequence[ModelName] = ()
    renewed: Sequence[ModelSettings] = ()
    """Models whose engines are started in another way."""
    adjusted: Sequence[ModelSettings] = ()
    """Models that poorwill itself treats in another way; their engines run on."""
    changes: Sequence[str] = ()
    """What changes, for people."""
    needs_restart: Sequence[str] = ()
    """Keys whose new value has to wait."""


def fleet_change(old: FleetSettings, new: FleetSettings) -> FleetChange:
    """Return what it takes to go from one configuration to another while serving."""
    tables = {name: tuple(table.keys.keys.values()) for name, table in file_tables().items()}
    fleet = _changed(tables["fleet"], old, new)
    gateway = _changed(tables["gateway"], old.gateway, new.gateway)
    named = [f"fleet.{key.name}" for key in fleet] + [f"gateway.{key.name}" for key in gateway]
    named += [name for name in ("rates", "spend") if getattr(old, name) != getattr(new, name)]
    kept = {
        key.into[0]: getattr(old, key.into[0]) for key in fleet if f"fleet.{key.name}" not in FOLLOWED_KEYS
    }
    kept_gateway = {
        key.into[0]: getattr(old.gateway, key.into[0])
        for key in gateway
        if f"gateway.{key.name}" not in FOLLOWED_KEYS
    }
    before = {model.name: model for model in old.models}
    waits = [name for name in named if "." in name and name not in FOLLOWED_KEYS]
    for name in ("devices", "hosts"):
        if getattr(old, name) != getattr(new, name):
            waits.append(name)
            kept[name] = getattr(old, name)
    gives = old.gives_devices
    models = [_possible(before.get(model.name), model, waits, gives=gives) for model in new.models]
    after = {model.name: model for model in models if model is not None}
    settings = replace(
        new, models=tuple(after.values()), gateway=replace(new.gateway, **kept_gateway), **kept
    )
    both = [(before[name], model) for name, model in after.items() if name in before]
    renewed = [new for old, new in both if _starts_anew(old, new)]
    priced_anew = old.rates != new.rates
    adjusted = [new for old, new in both if not _starts_anew(old, new) and (old != new or priced_anew)]
    keys = tables["models"]
    return FleetChange(
        settings=settings,
        added=[model for name, model in after.items() if name not in before],
        removed=[name for name in before if name not in after],
        renewed=renewed,
        adjusted=adjusted,
        changes=[
            *(f"models.{name} is new" for name in after if name not in before),
            *(f"models.{name} leaves" for name in before if name not in after),
            *(_told(old, new, keys) for old, new in both if old != new),
            *(name for name in named if name not in waits),
        ],
        needs_restart=waits,
    )


def _changed(keys: Sequence[DeclaredKey], old: object, new: object) -> list[DeclaredKey]:
    return [key for key in keys if _value(old, key.into) != _value(new, key.into)]


def _value(settings: object, path: Sequence[str]) -> object:
    for name in path:
        settings = getattr(settings, name)
    return settings


def _starts_anew(old: ModelSettings, new: ModelSettings) -> bool:
    return (old.engine, old.devices, old.elsewhere) != (new.engine, new.devices, new.elsewhere)


def _possible(
    old: ModelSettings | None, new: ModelSettings, waits: list[str], *, gives: bool
) -> ModelSettings | None:
    """Return a model as far as it needs no restart, None if it cannot be served; `waits` gets the rest."""
    if new.cloud != (old.cloud if old else None):
        waits.append(f"models.{new.name}.cloud")
        return old
    if new.hosts or (old and old.hosts):
        if new != old:
            waits.append(f"models.{new.name}.hosts")  # the hosts were told of the old one
        return old
    if old and _in_machine(old) != _in_machine(new):
        waits.append(f"models.{new.name}.ladder")
        return old
    if old and _in_machine(old) and old.engine != new.engine:
        waits.append(f"models.{new.name}.engine")  # its virtual machine has the old one in it
        return old
    if new.devices.any and not gives:
        waits.append(f"models.{new.name}.devices")
        return old
    before = old.hosted if old else None
    bridged = any(hosted is not None and hosted.bridge for hosted in (before, new.hosted))
    if bridged and new.hosted != before:
        waits.append(f"models.{new.name}.hosted")
        new = replace(new, hosted=before)
    return new


def _in_machine(model: ModelSettings) -> bool:
    return Tier.SUSPENDED in model.replica.park.ladder


def _told(old: ModelSettings, new: ModelSettings, keys: Sequence[DeclaredKey]) -> str:
    names = ", ".join(key.name for key in _changed(keys, old, new))
    anew = "; its engine starts anew with its next wake" if _starts_anew(old, new) else ""
    return f"models.{new.name}: {names}{anew}"
