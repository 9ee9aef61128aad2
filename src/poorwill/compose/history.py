"""The past of a fleet, from its ledger and its engines' logs."""

import asyncio
import os
import re
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from poorwill.bill import compare as comparing
from poorwill.bill import explain as explaining
from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.hosts.files.names import file_name
from poorwill.ledger.costs.one_request import request_cost
from poorwill.ledger.dates import Period
from poorwill.ledger.history import overview
from poorwill.ledger.history.views import Costs, LogPiece, PastRequest, PastWake, RequestCost, Ribbons
from poorwill.ledger.ledger import Ledger
from poorwill.ledger.upkeep import back_up

LOG_BYTES = 64 * 1024
PLAN_S, PLAN_NICE = 120.0, 15
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Colours and other escape sequences of terminals, control characters, and marks that reorder text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHistory:
    """Implements the dashboard's `FleetHistory`."""

    ledger: Ledger
    logs: Path
    fleet: Path | None = None
    """Its configuration file; without one there is no plan."""
    one_plan: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def ribbons(self, from_us: int, to_us: int) -> Ribbons:
        """Return every replica's time within a window."""
        return await self.ledger.read(lambda db: overview.ribbons(db, from_us, to_us))

    async def costs(self) -> Costs:
        """Return what the models cost today, this month and by day."""
        now_us = self.ledger.clock.now_us()
        return await self.ledger.read(lambda db: overview.costs(db, now_us))

    async def wakes(self, model: str | None, last: int) -> Sequence[PastWake]:
        """Return the last finished wakes, the newest first."""
        return await self.ledger.read(lambda db: overview.last_wakes(db, model, last))

    async def requests(self, last: int) -> Sequence[PastRequest]:
        """Return the last finished requests, the newest first."""
        return await self.ledger.read(lambda db: overview.last_requests(db, last))

    async def cost(self, request: str) -> RequestCost | None:
        """Return what a request cost, None if its row is not there yet."""
        return await self.ledger.read(lambda db: request_cost(db, request))

    async def copy(self) -> BinaryIO:
        """Return a consistent copy of the ledger. Raises OperatorFault. Cancelled: none is left.

        What was handed over is committed first, if it can be: who has had an answer finds it in the copy.
        """
        path = self.ledger.path
        with suppress(OperatorFault):  # on a full disk, what can be had
            await self.ledger.record(())

        def copied() -> BinaryIO:
            with tempfile.TemporaryDirectory(prefix=".copy-", dir=Path(path).parent) as directory:
                back_up(path, target := f"{directory}/ledger.sqlite")
                return open(target, "rb")

        return await asyncio.to_thread(copied)

    async def explain(self, model: str, at_us: int) -> Sequence[str]:
        """Say why a second was paid. Raises RequestFault."""
        now_us = self.ledger.clock.now_us()
        found = await self.ledger.read(lambda db: explaining.explain(db, model, at_us, now_us=now_us))
        return [line for each in found for line in explaining.as_text(each)]

    async def compare(self, this: tuple[int, int], last: tuple[int, int]) -> Sequence[str]:
        """Say why one period cost more than another. Raises RequestFault."""
        periods = [Period(from_us=began, to_us=ended) for began, ended in (this, last)]
        return comparing.as_text(await self.ledger.read(lambda db: comparing.compare(db, *periods)))

    async def plan(self, model: str) -> object:
        """Return `poorwill plan --from-ledger --json` of a model, made by a child process, one at a time.

        Raises RequestFault if there is no plan. Cancelled, or too slow: the child is killed.
        """
        if self.fleet is None:
            raise RequestFault(ErrorCode.INVALID_REQUEST, "this fleet was not made from a file")
        words = ["plan", "--from-ledger", "--json", f"--fleet={self.fleet}", f"--model={model}"]
        async with self.one_plan:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "poorwill", *words), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
            )
            try:
                os.setpriority(os.PRIO_PROCESS, child.pid, PLAN_NICE)
                async with asyncio.timeout(PLAN_S):
                    said, why = await child.communicate()
            except TimeoutError:
                raise RequestFault(ErrorCode.INVALID_REQUEST, f"no plan within {PLAN_S:.0f} s") from None
            finally:
                if child.returncode is None:
                    child.kill()
        try:
            plan: dict[str, dict[str, str]] = msgspec.json.decode(said)
        except msgspec.DecodeError:
            raise RequestFault(ErrorCode.INVALID_REQUEST, f"the planner failed: {why[-500:]!r}") from None
        if "error" in plan:
            raise RequestFault(ErrorCode.INVALID_REQUEST, plan["error"]["message"])
        return plan

    async def log(self, replica: str, start: int | None) -> LogPiece:
        """Return an engine's log from a byte on, without what a terminal would take for a command."""
        return await asyncio.to_thread(log_piece, self.logs, replica, start)


def log_piece(logs: Path, replica: str, start: int | None) -> LogPiece:
    """Return an engine's log from a byte on; see `FleetHistory.log`. Blocks."""
    try:
        with (logs / f"{file_name(replica)}.log").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            at = max(size - LOG_BYTES, 0) if start is None or start > size else start
            file.seek(at)
            data = file.read(LOG_BYTES)
    except OSError:
        return LogPiece(text="", next=0)
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    return LogPiece(text=_CONTROL.sub("", text), next=at + len(data))
