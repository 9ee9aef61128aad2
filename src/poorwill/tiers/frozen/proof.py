"""Proving that the frozen tier works here: a tiny listening process is dumped, restored and asked again.

`criu check` passes on machines where every dump fails, so nothing less counts. A success is kept in the
fleet directory together with everything it depends on, so that the next start need not repeat it; a failure
is always tried again.
"""

import json
import os
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.words import Tier
from poorwill.hosts.files.user import may_freeze_others
from poorwill.tiers.frozen.criu import Criu
from poorwill.tiers.frozen.driver import FrozenDriver
from poorwill.tiers.proof import STEP_LIMIT_S, ProcessTrial, Proof
from poorwill.tiers.snapshots.space import Space
from poorwill.tiers.snapshots.store import SnapshotStore

PROVEN_FILE = "proven-frozen.json"
ENOUGH_PIDS = 2**18
MOST_PIDS = 2**22
"""The kernel's own limit on 64 bits, and what systemd sets (proc_sys_kernel(5))."""

INSTALL = "poorwill doctor --install-criu"
CAPABILITIES = "setcap cap_checkpoint_restore,cap_setpcap+eip"


async def prove_frozen(
    *, criu: Criu | None, directory: Path, clock: Clock, log: Log, fresh: bool = False
) -> Proof:
    """Freeze and thaw a tiny process, unless that is known to work; about 0.2 s.

    `directory` keeps the knowledge (`PROVEN_FILE`); `fresh` ignores it. Cancelled: nothing is left.
    """
    if criu is None:
        return Proof(tier=Tier.FROZEN, works=False, why="no CRIU was found", mend=INSTALL)
    proof_key = _proof_key(criu)
    cautions = (pid_caution(_pid_max()), user_caution(), fill_caution(criu), run_caution())
    caution = "; ".join(filter(None, cautions))
    if not fresh and (known := _known(directory / PROVEN_FILE, proof_key)):
        return Proof(tier=Tier.FROZEN, works=True, why=known, caution=caution)
    with tempfile.TemporaryDirectory(prefix=".proof-", dir=directory) as scratch:
        trial = ProcessTrial(scratch=Path(scratch), clock=clock, log=log)
        driver = FrozenDriver(
            criu=replace(criu, dump_limit_s=STEP_LIMIT_S, restore_limit_s=STEP_LIMIT_S),
            store=SnapshotStore(root=trial.scratch / "snapshots", tier=Tier.FROZEN),
            space=Space(log=log),
            processes=trial.processes,
            clock=clock,
            log=log,
            ready_limit_s=STEP_LIMIT_S,
        )
        proof = await trial.prove(driver)
    if not proof.works:
        why = f"criu {criu.version} ({criu.binary}) failed: {proof.why}"
        return replace(proof, why=why, mend=_mend(criu))
    why = f"criu {criu.version} froze a listening process: {proof.why}"
    _keep(directory / PROVEN_FILE, proof_key, why)
    return replace(proof, why=why, caution=caution)


def pid_caution(pid_max: int) -> str:
    """Return a warning if there are so few process ids that a parked engine's may be taken when it wakes."""
    if pid_max >= ENOUGH_PIDS:
        return ""
    return (
        f"only {pid_max} process ids: a wake falls back to a cold start when another process got one of "
        f"the engine's; sysctl kernel.pid_max={MOST_PIDS} makes that unlikely"
    )


def user_caution() -> str:
    """Return a warning if poorwill is root but may not freeze the engine of another user."""
    if os.geteuid() != 0 or may_freeze_others():
        return ""
    return "not for a model with an `engine_user`: this root has no CAP_SYS_RESOURCE"


def fill_caution(criu: Criu) -> str:
    """Return a warning if criu has to fill memory by itself, with one thread."""
    return (
        "" if criu.fills else "memory is restored by one thread: userfaultfd(2) with events needs root here"
    )


def run_caution(run: str = "/run") -> str:
    """Return a warning if criu cannot keep what it learns about the kernel, for which it wants a tmpfs."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    if os.geteuid() != 0 or [kind for _, where, kind, *_ in mounts if where == run][-1:] == ["tmpfs"]:
        return ""
    return f"{run} is no tmpfs, so criu tries the kernel anew at each park and wake (some 0.1 s)"


def _mend(criu: Criu) -> str:
    ways = []
    if criu.unprivileged:
        ways.append(
            "run poorwill as root, or with two ambient capabilities (`poorwill deploy unit --run-as NAME` "
            f"writes such a unit), or give the binary the rights: {CAPABILITIES} {criu.binary}"
        )
    if _major_minor(criu.version) < (4, 2):
        ways.append(f"get CRIU 4.2 or later: {INSTALL}")
    return "; ".join(ways) or "see docs/parking.md"


def _major_minor(version: str) -> tuple[int, int]:
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    major, minor, *_ = [*numbers, 0, 0]
    return major, minor


def _proof_key(criu: Criu) -> dict[str, object]:
    """Return what a proof is valid for: this kernel, binary, user and rights."""
    status = os.stat(criu.binary)
    rights = "".join(
        line for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "CapEff"
    )
    return {
        "kernel": os.uname().release,
        "binary": criu.binary,
        "version": criu.version,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
        "user": os.geteuid(),
        "rights": rights,
        "python": sys.executable,
        "fills": criu.fills,
    }


def _pid_max() -> int:
    return int(Path("/proc/sys/kernel/pid_max").read_text())


def _known(path: Path, proof_key: dict[str, object]) -> str:
    try:
        kept = json.loads(path.read_text())
        return str(kept["why"]) if kept["proof_key"] == proof_key else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _keep(path: Path, proof_key: dict[str, object], why: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"proof_key": proof_key, "why": why}))
    temporary.replace(path)
