"""The text of a systemd unit that serves one fleet: every setting with its reason.

Text only: it reads no file, asks no systemd and installs nothing. Sources: systemd.exec(5), systemd.kill(5),
systemd.service(5) and systemd.unit(5) of systemd 252; what CRIU bears was tried (docs/deploy.md).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import FleetSettings, HostsSettings
from poorwill.core.words import SECOND_US, Tier
from poorwill.remote.systemd import MARGIN_S, Manager

RESTART_S = 5
HEAD = "head"

CRIU_RIGHTS = "CAP_CHECKPOINT_RESTORE CAP_SETPCAP"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFile:
    """What the unit is to run, and where. Paths are absolute, or begin with a specifier of systemd's."""

    manager: Manager
    binary: str
    fleet: str
    directory: str
    exit_s: int
    freezes: bool
    """Some model's ladder has the tier `frozen`: CRIU has to work inside the unit."""
    run_as: str = ""
    """The user to run as; root if empty. For the system's manager only."""
    engine_users: tuple[str, ...] = ()
    """Users that engines run as, which only root can start."""
    host: str = ""
    """What `poorwill host` is given; empty: the unit serves the fleet."""

    @property
    def as_root(self) -> bool:
        """Whether it runs with root's rights."""
        return self.manager is Manager.SYSTEM and self.run_as in ("", "root")


def unit_for(
    settings: FleetSettings, *, manager: Manager, binary: str, fleet: str, run_as: str = ""
) -> UnitFile:
    """Return the unit for a fleet as it is configured. Raises OperatorFault if only root can serve it."""
    engine_users = tuple(sorted({model.engine.user for model in settings.models} - {""}))
    unit = UnitFile(
        manager=manager,
        binary=binary,
        fleet=fleet,
        directory=settings.directory,
        exit_s=-(-settings.exit_us // SECOND_US),
        freezes=any(Tier.FROZEN in model.replica.park.ladder for model in settings.models),
        run_as=run_as,
        engine_users=engine_users,
    )
    if engine_users and not unit.as_root:
        what = f"only root can start engines as {', '.join(engine_users)}"
        hint = "a unit of the system without --run-as, or no engine_user"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=hint)
    return unit


def host_unit(unit: UnitFile, hosts: HostsSettings | None, name: str) -> UnitFile:
    """Return the unit of a host's service, or of Ray's head if the name is HEAD. Raises OperatorFault."""
    if hosts is None or name not in (HEAD, *hosts.relays):
        what = f"{name!r} is no host of this fleet"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=f"a name from [hosts] relays, or {HEAD}")
    if name == HEAD:
        what = f"--head {hosts.head}"
    else:
        what = f"--join {hosts.head} --name {name} --relay {hosts.relays[name]}"
    return replace(unit, host=f"{what} --key {hosts.key} --directory {unit.directory}")


def unit_text(unit: UnitFile) -> str:
    """Return the unit file."""
    return "\n".join(
        [
            *_head(unit),
            "",
            "[Service]",
            *_start(unit),
            *_stop(unit),
            *_limits(),
            *_rights(unit),
            *_walls(unit),
            "",
            "[Install]",
            f"WantedBy={'default' if unit.manager is Manager.USER else 'multi-user'}.target",
            "",
        ]
    )


LITESTREAM = "/usr/local/bin/litestream"


def replication(ledger: str, url: str) -> str:
    """Return Litestream's configuration: it looks for news every 200 ms, and sends them, not every second."""
    replica = {"url": url, "sync-interval": "200ms"}
    return json.dumps({"dbs": [{"path": ledger, "monitor-interval": "200ms", "replica": replica}]})


def replication_text(unit: UnitFile, ledger: str, url: str) -> str:
    """Return the unit of Litestream that copies the ledger to `url` as it is written (docs/deploy.md)."""
    user = unit.manager is Manager.USER
    environment = "%h/.config/poorwill" if user else "/etc/poorwill"
    lines = [
        "# Made by `poorwill deploy unit --replicate`: the ledger is copied as it is written.",
        "[Unit]",
        "Description=Litestream: a copy of poorwill's ledger",
        "# Begins before poorwill and ends after it, so that the last entries are copied too.",
        "Before=poorwill.service",
        f"RequiresMountsFor={unit.directory}",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={LITESTREAM} replicate -config /dev/stdin",
        "StandardInput=data",
        f"StandardInputText={replication(ledger, url)}",
        "# What it signs in with at a bucket: LITESTREAM_ACCESS_KEY_ID=, LITESTREAM_SECRET_ACCESS_KEY=",
        f"EnvironmentFile=-{environment}/litestream.env",
        "# It needs what poorwill has: to read and write the ledger and its own notes beside it.",
        *([f"User={unit.run_as}"] if unit.run_as else []),
        "UMask=0077",
        "NoNewPrivileges=yes",
        "# While it is down the ledger grows a longer log, and nothing is lost that the disk keeps.",
        "Restart=always",
        f"RestartSec={RESTART_S}",
        "",
        "[Install]",
        f"WantedBy={'default' if user else 'multi-user'}.target",
        "",
    ]
    return "\n".join(lines)


def _head(unit: UnitFile) -> Iterator[str]:
    yield "# Made by `poorwill deploy unit` from exit_s and the ladders: make it anew when they change."
    yield "[Unit]"
    what = "a host of a fleet" if unit.host else "language models that sleep when nobody uses them"
    yield f"Description=poorwill: {what}"
    if unit.manager is Manager.SYSTEM:
        yield "# A listener on an address that the network has yet to bring up cannot bind."
        yield "Wants=network-online.target"
        yield "After=network-online.target"
    yield "# The ledger and the snapshots: not before their disk is mounted."
    yield f"RequiresMountsFor={unit.directory}"


def _start(unit: UnitFile) -> Iterator[str]:
    yield "# Started once the program is executed. That it serves is what /healthz says, not systemd."
    yield "Type=exec"
    if unit.host:
        yield "# Add --gpus N to give out fewer devices. The key is a copy of the fleet's (docs/hosts.md)."
        yield f"ExecStart={unit.binary} host {unit.host}"
    else:
        yield f"ExecStart={unit.binary} serve {unit.fleet}"
        yield "# It fails, and says why, if the file is faulty; nothing is changed then (docs/reload.md)."
        yield f"ExecReload={unit.binary} reload {unit.fleet}"
    yield "# Where the one file unpacks itself, for good: engines run, and frozen ones wake, from there."
    yield "CacheDirectory=poorwill"
    yield "Environment=PEX_ROOT=%C/poorwill"
    if unit.as_root:
        yield "# systemd sets none for root; poorwill's own CRIU and the engines' caches are found by it."
        yield "Environment=HOME=%h"
    yield "# A crash is picked up where it happened: engines are adopted, snapshots kept. A pause of"
    yield f"# {RESTART_S} s stays below systemd's start limit (5 in 10 s), so it never gives up."
    yield "Restart=on-failure"
    yield f"RestartSec={RESTART_S}"
    yield "# 2: the configuration is wrong. Trying again does not fix it."
    yield "RestartPreventExitStatus=2"


def _stop(unit: UnitFile) -> Iterator[str]:
    yield '# Only poorwill is told to stop. What becomes of the engines is on_exit\'s business: with "leave"'
    yield "# they run on through an upgrade, and the next poorwill adopts them."
    yield "KillMode=process"
    yield "# A control group for each engine, so that nothing an engine starts can leave it."
    yield "Delegate=yes"
    yield f"# [fleet] exit_s is {unit.exit_s}; {MARGIN_S} s more, then SIGKILL: the next start recovers."
    yield f"TimeoutStopSec={unit.exit_s + MARGIN_S}"
    yield "# An engine that runs out of memory is poorwill's to replace; the default would stop everything."
    yield "OOMPolicy=continue"


def _limits() -> Iterator[str]:
    yield "# A descriptor for each client and each request to an engine; the default soft limit is 1024."
    yield "LimitNOFILE=65536"
    yield "# A core of an engine would be its weights and its users' prompts on the disk."
    yield "LimitCORE=0"
    yield "# Ledger, logs and snapshots are nobody else's to read."
    yield "UMask=0077"


def _rights(unit: UnitFile) -> Iterator[str]:
    if unit.manager is Manager.USER and unit.freezes:
        yield "# No NoNewPrivileges: the tier `frozen` needs the capabilities on the criu binary to count:"
        yield "#   sudo setcap cap_checkpoint_restore,cap_setpcap+eip ~/.local/share/poorwill/criu/criu"
        return
    if not unit.as_root:
        if unit.run_as:
            yield f"User={unit.run_as}"
        if unit.freezes:
            yield "# What CRIU needs without root, and no right besides. The engines have these two as well."
            yield f"AmbientCapabilities={CRIU_RIGHTS}"
            yield f"CapabilityBoundingSet={CRIU_RIGHTS}"
        elif unit.manager is Manager.SYSTEM:
            yield "CapabilityBoundingSet="
    elif unit.engine_users:
        yield f"# Root, to start engines as {', '.join(unit.engine_users)}: they read nothing of poorwill's."
    elif unit.freezes:
        yield "# Root, for CRIU. With `--run-as NAME` two capabilities are enough."
    else:
        yield "# Root, which no tier of this fleet needs: `--run-as NAME` makes it a user of its own."
    yield "# No program that is started from here gains rights it does not have (setuid, file capabilities)."
    yield "NoNewPrivileges=yes"


def _walls(unit: UnitFile) -> Iterator[str]:
    if unit.freezes:
        yield "# No ProtectSystem, PrivateTmp, ProtectHome and their like: each gives every start of the"
        yield "# unit a mount namespace of its own, and CRIU does not restore an engine that was adopted"
        yield "# from another. No filters on system calls either: CRIU would have to restore those as well."
        return
    if unit.manager is Manager.SYSTEM:
        yield "# /usr, /boot and /etc are read-only. Not `strict`: engines keep caches under HOME."
        yield "ProtectSystem=full"
        yield "# Likewise /proc/sys and /sys. Not ProtectControlGroups: each engine has a group of its own."
        yield "# Not ProtectKernelModules, ProtectClock or"
        yield "# PrivateDevices: they keep CUDA from its modules and devices. Not PrivateTmp: an engine that"
        yield "# is left running would lose its files."
        yield "ProtectKernelTunables=yes"
    yield "# System calls that no engine needs. Not MemoryDenyWriteExecute: compiling engines write code."
    yield "RestrictSUIDSGID=yes"
    yield "LockPersonality=yes"
    yield "SystemCallArchitectures=native"
