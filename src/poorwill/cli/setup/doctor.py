"""`poorwill doctor`: which tiers work on this machine, proved by using them; and orphans.

Every tier is really used on a tiny process; a fleet's rented machines are only looked at. What does not work
is named with the reason and what would fix it. `--sweep` compares what exists with what the ledger owns.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from poorwill.cli.parsing.exit_status import FINDING
from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetArgument, JsonOption, fleet_path
from poorwill.cli.parsing.options import Option
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.compose.clock import SystemClock
from poorwill.compose.deployment.criu_install import install_criu
from poorwill.compose.drivers.doctor_documents import (
    DoctorDocument,
    ProofDocument,
    SweepDocument,
    device_documents,
    device_lines,
    proof_lines,
    sweep_document,
    sweep_lines,
)
from poorwill.compose.wake_reports import how_measured
from poorwill.core.format import size
from poorwill.core.settings import FleetSettings
from poorwill.core.words import Tier
from poorwill.engines.measured.storage_speed import StorageSpeed
from poorwill.policies.coldstart.report.documents import StorageDocument
from poorwill.telemetry.log import StreamLog
from poorwill.tiers.frozen.criu import private_prefix

_BETTER = (Tier.FROZEN, Tier.SUSPENDED, Tier.HIBERNATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """The options of `poorwill doctor`."""

    fleet: FleetArgument = DEFAULT_FILE
    json: JsonOption = False
    install_criu: Annotated[
        bool,
        Option("install a CRIU of poorwill's own (Debian sid's, with its libraries) into a private prefix"),
    ] = False
    sweep: Annotated[
        bool,
        Option(
            "compare the fleet's processes, snapshots and rented machines with its ledger; changes nothing"
        ),
    ] = False


async def _run(options: DoctorOptions, streams: Streams) -> int:
    if options.sweep:
        return await _sweep(options, streams)
    if options.install_criu:
        criu = await install_criu(private_prefix(streams.env), env=streams.env, tell=streams.tell)
        streams.tell(f"criu {criu.version} is in {criu.binary}")
    from poorwill.compose.drivers.devices import seen_devices
    from poorwill.compose.drivers.trial import prove_tiers  # loads every engine
    from poorwill.hosts.devices.nvml import load_nvml

    fleet = _fleet(options, streams)
    log = StreamLog(stream=streams.stderr, level="error")
    proofs = await prove_tiers(fleet, env=streams.env, log=log)
    speed = await asyncio.to_thread(_measured_anew, fleet, streams) if fleet else None
    devices, trouble = await asyncio.to_thread(seen_devices, fleet, load_nvml())
    if options.json:
        tiers = msgspec.convert(proofs, tuple[ProofDocument, ...], from_attributes=True)
        storage = msgspec.convert(speed, StorageDocument | None, from_attributes=True)
        streams.say_json(DoctorDocument(tiers=tiers, storage=storage, devices=device_documents(devices)))
    else:
        streams.say(*proof_lines(proofs))
        if fleet is not None:
            streams.say(f"{'storage':<10} {_storage(speed)}")
        for line in device_lines(devices, trouble if fleet is not None and fleet.gives_devices else ""):
            streams.say(f"{'device':<10} {line}")
    # Cold parking always works; the question is whether there is a tier that is better than that.
    better = [proof for proof in proofs if proof.tier in _BETTER]
    rented = [proof for proof in proofs if proof.tier is Tier.HIBERNATED and proof.tried]
    fine = any(proof.works for proof in better) and all(proof.works for proof in rented)
    return 0 if fine else FINDING


def _measured_anew(fleet: FleetSettings, streams: Streams) -> StorageSpeed | None:
    from poorwill.compose.host import storage_speed  # loads every engine

    now_us = SystemClock.started().now_us()
    return storage_speed(fleet, env=streams.env, at_us=now_us, anew=True)


def _storage(speed: StorageSpeed | None) -> str:
    if speed is None:
        return "not measured: the fleet names no model file that can be read and is large enough"
    return f"{size(speed.bytes_s)}/s, measured on {speed.path} ({how_measured(speed)})"


def _fleet(options: DoctorOptions, streams: Streams) -> FleetSettings | None:
    """Return the fleet's configuration, if there is one: the doctor also works without."""
    known = Path(fleet_path(options.fleet)).exists()
    return read_fleet(options.fleet, streams.env) if known else None


async def _sweep(options: DoctorOptions, streams: Streams) -> int:
    from poorwill.compose.drivers.sweep import sweep_fleet  # loads every driver

    settings = read_fleet(options.fleet, streams.env)
    log = StreamLog(stream=streams.stderr, level="warning")
    sweep, count = await sweep_fleet(settings, env=streams.env, log=log)
    if options.json:
        streams.say_json(sweep_document(sweep))
    else:
        streams.say(*sweep_lines(sweep, count))
    return FINDING if sweep.orphans or sweep.unserved or sweep.missing else 0


VERB = new_verb(
    DoctorOptions,
    _run,
    DoctorDocument,
    SweepDocument,
    epilog="With a fleet it also measures the storage that holds the weights, for anatomy and predictions.\n"
    "Exit status 1: no tier works but cold, a rented machine is out of reach, or the sweep found something.\n"
    "docs/parking.md explains the tiers and what each needs.",
)
