"""Checks of a configuration that need this machine and the fleet's ledger: more problems, and warnings."""

import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from poorwill.compose.bridges import unpriced_bridges
from poorwill.compose.clock import SystemClock
from poorwill.compose.drivers.devices import device_problems
from poorwill.compose.hub.fetch import EXTRA
from poorwill.compose.hub.on_disk import located
from poorwill.compose.paths import ledger_path
from poorwill.compose.plans import measured_costs
from poorwill.config import lines_of
from poorwill.config.machine_checks import cloud_cautions, taken_ports
from poorwill.config.rules.advice import advice
from poorwill.config.rules.break_even import short_idles
from poorwill.config.rules.listeners import listener_problems
from poorwill.config.values.hub_names import hub_name
from poorwill.core.errors import OperatorFault
from poorwill.core.problems import Problem
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import Tier
from poorwill.engines.kinds import cannot_sleep, missing_program
from poorwill.hosts.devices.nvml import load_nvml
from poorwill.ledger.history.recovery import Recovered, recovered
from poorwill.ledger.keys import KeyRow, list_keys
from poorwill.ledger.schema import reading
from poorwill.policies import TierCosts
from poorwill.telemetry.admin.certificate import tls_context


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """What the fleet's ledger knows that a configuration can be judged by."""

    recovered: Recovered | None = None
    keys: tuple[KeyRow, ...] = ()
    trouble: tuple[Problem, ...] = ()


def _remembered(fleet: FleetSettings) -> _Remembered:
    path = ledger_path(fleet)
    if not os.path.exists(path):
        return _Remembered()
    try:
        with reading(path) as db:
            return _Remembered(recovered=recovered(db), keys=tuple(list_keys(db)))
    except OperatorFault as fault:
        return _Remembered(trouble=(Problem(where=path, what=fault.message, hint=fault.hint or ""),))


def check_here(
    fleet: FleetSettings, source: str, env: Mapping[str, str], *, ports: bool
) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """Return what would keep a readable configuration from being served here, and warnings."""
    known = _remembered(fleet)
    lines = lines_of(source)
    never, cautions = device_problems(fleet, load_nvml())
    facing = listener_problems(
        fleet.gateway,
        keys_configured=not all(key.limits.operator for key in known.keys),
        operators=any(key.limits.operator and key.revoked_us is None for key in known.keys),
    )
    problems = [
        replace(problem, line=lines.of(tuple(problem.where.split("."))))
        for problem in (*facing, *_certificate(fleet), *never)
    ]
    if ports:
        problems += taken_ports(fleet)
    names = [key.name for key in known.keys]
    warnings = [*known.trouble, *cautions, *advice(fleet), *_unknown_keys(fleet, names)]
    if known.recovered is not None and fleet.rates:
        problems += _short_idles(fleet, source, known.recovered)
    problems += unpriced_bridges(fleet, lines)
    return problems, [*warnings, *engine_cautions(fleet, env), *cloud_cautions(fleet, env)]


def _certificate(fleet: FleetSettings) -> Iterator[Problem]:
    """Return a problem if the certificate for operators elsewhere cannot be used."""
    remote = fleet.gateway.remote_admin
    if remote is not None and remote.certificate and remote.private_key:
        try:
            tls_context(remote.certificate, remote.private_key)
        except OperatorFault as fault:
            yield Problem(where="gateway.remote_admin", what=fault.message, hint=fault.hint or "")


def engine_cautions(fleet: FleetSettings, env: Mapping[str, str]) -> Iterator[Problem]:
    """Return warnings of engines that are not installed here, and of rungs that theirs will not take."""
    for model in fleet.models:
        if model.away is not None:
            continue
        if hub_name(located(model, env).engine.path):
            what = f"{model.engine.path} is not on disk: the first wake downloads it"
            hint = f"poorwill pull {model.name}" if find_spec("huggingface_hub") else EXTRA
            yield Problem(where=f"models.{model.name}.path", what=what, hint=hint)
        missing = missing_program(model.engine, env)
        if missing is not None:
            yield Problem(
                where=f"models.{model.name}.engine",
                what=f"there is no program {missing!r} on PATH",
                hint="install it, or give its path with command",
            )
        why = cannot_sleep(model.engine) if Tier.ASLEEP in model.replica.park.ladder else None
        if why is not None:
            what = f"asleep will be skipped: {why[0]}"
            yield Problem(where=f"models.{model.name}.ladder", what=what, hint=why[1])


def _short_idles(fleet: FleetSettings, source: str, known: Recovered) -> Sequence[Problem]:
    now_us = SystemClock.started().now_us()

    def costs(model: ModelSettings, tier: Tier) -> TierCosts | None:
        return measured_costs(model, tier, fleet.rates, known, now_us=now_us)

    return short_idles(fleet, costs, lines_of(source))


def _unknown_keys(fleet: FleetSettings, names: Sequence[str]) -> Sequence[Problem]:
    limits = {**fleet.spend.key_day_nusd, **fleet.spend.key_month_nusd}
    return [
        Problem(where="spend", what=f"there is no key named {name!r}", hint="see poorwill keys list")
        for name in limits
        if name not in names
    ]
