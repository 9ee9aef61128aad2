"""Finds engines that are there and answer nobody: their requests raise a suspicion, a probe decides."""

import asyncio

from poorwill.core.machine.lifecycle import State
from poorwill.fleet.context import FleetContext
from poorwill.fleet.lost import lose, unwatch
from poorwill.fleet.unit import Unit

PROBE_S = 15.0
"""How long a suspected engine may take for a few tokens: more than a busy one needs."""


class Suspects:
    """Probes engines that seem to hang, one after another, and ends those that do."""

    def __init__(self, *, context: FleetContext) -> None:
        self._context = context
        self._waiting: dict[tuple[str, int], str] = {}
        self._news = asyncio.Event()

    def suspect(self, host: str, port: int, why: str) -> None:
        """Have the engine at this address probed. Never raises."""
        self._waiting[host, port] = why
        self._news.set()

    async def follow(self) -> None:
        """Probe what is suspected, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                address, why = self._waiting.popitem()
                for unit in list(self._context.units.values()):
                    if unit.running is not None and (unit.running.host, unit.running.port) == address:
                        await self.probe(unit, why)

    async def probe(self, unit: Unit, why: str) -> None:
        """Ask an engine for a few tokens; end it if nothing comes within a bound.

        Only silence counts: an answer of any kind, a refusal included, is life, and an error is no verdict.
        """
        running, bound = unit.running, asyncio.timeout(PROBE_S)
        if running is None:
            return
        log = self._context.log
        try:
            launch = await unit.known_launch()
            async with bound:
                await unit.equipment.engine.probe(running, launch)
            return
        except Exception as error:
            if not bound.expired():
                log.warning("cannot probe an engine", model=unit.model, why=repr(error))
                return
        if unit.running is not running or unit.replica.state not in (State.READY, State.DRAINING):
            return
        hung = f"{why}, and a probe got none in {PROBE_S:g} s: the engine hangs"
        log.error("an engine hangs; it is ended", replica=unit.id, why=hung)
        unwatch(unit)
        await lose(self._context, unit, running, hung, kind="engine_hung", cut=True)
