"""Finds engines that are there and answer nobody: silence raises a suspicion, an examination decides.

Evidence of life is a byte to anybody, an answer to a probe, counters that move (/slots, /metrics), or, for a
while, processes that compute or read; unless its health, which should answer then too, is silent as well. An
error in watching is no verdict.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from poorwill.core.launch import Launch, Running
from poorwill.core.machine.lifecycle import State
from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.engine import UNANSWERED
from poorwill.engines.kinds import ENGINE_KINDS
from poorwill.fleet.lost import lose, unwatch
from poorwill.fleet.unit import FleetContext, Unit
from poorwill.policies.requests.silence import Suspicion

IDLE_EFFORT_S = 5.0
"""Of `Processes.effort` in each second: 5 % of one core is less than any engine uses that works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an examination bears silence, by what is seen meanwhile. A probe waits all the time."""

    look_s: float = 2.0
    """Between two looks."""
    sure_s: float = 5.0
    """Its processes do nothing, and requests have timed out."""
    idle_s: float = 15.0
    """Its processes do nothing, and it leaves even its own health or counters unanswered."""
    still_s: float = 60.0
    """Its processes do nothing, and it shows counters, none of which moves. Counters alone prove nothing:
    llama.cpp's stand still while it computes a batch, which may take minutes on a slow CPU."""
    deaf_s: float = 25.0
    """Its processes compute, and no look at its health got an answer, although its kind answers while it
    works: it spins. Each look waits for seconds, so that these are five or more in a row."""
    busy_s: float = 110.0
    """Its processes compute, nothing else is known, and requests have timed out: a long batch is this slow.
    Less than `engines.asking.MOST_ANSWER_S`, after which the probe itself gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """One look at an engine."""

    told: str | None
    """As `Engine.vital_signs`."""
    effort: int | None
    at_s: float
    """On the loop's clock."""

    @property
    def answered(self) -> bool:
        """Whether all that was asked got an answer."""
        return self.told not in (None, UNANSWERED)

    def busy_since(self, before: "Signs") -> bool:
        """Return whether its processes have computed or read meanwhile, or nobody can tell."""
        if self.effort is None or before.effort is None:
            return True
        return self.effort - before.effort > IDLE_EFFORT_S * (self.at_s - before.at_s)


class Suspects:
    """Examines engines that seem to hang and ends those that do.

    `heard` returns when an address last sent a byte, on the loop's clock.
    """

    def __init__(
        self,
        *,
        context: FleetContext,
        heard: Callable[[str, int], float],
        patience: Patience | None = None,
    ) -> None:
        self._context = context
        self._heard = heard
        self._patience = patience or Patience()
        self._waiting: dict[tuple[str, int], Suspicion] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    def suspect(self, host: str, port: int, why: Suspicion) -> None:
        """Have the engine at this address examined. Never raises."""
        self._waiting[host, port] = why
        self._news.set()

    async def follow(self) -> None:
        """Examine what is suspected, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._news.wait()
                self._news.clear()
                waiting, self._waiting = self._waiting, {}
                for unit in list(self._context.units.values()):
                    running, known = unit.running, self._under_way.get(unit.id)
                    why = waiting.get((running.host, running.port)) if running is not None else None
                    if why is not None and (known is None or known.done()):
                        self._under_way[unit.id] = group.create_task(self.examine(unit, why))

    async def examine(self, unit: Unit, suspicion: Suspicion) -> None:
        """Look for life in an engine; end it if there is none for as long as `Patience` says.

        Cancelled: no connection to the engine stays open.
        """
        running = unit.running
        if running is None:
            return
        log = self._context.log
        try:
            launch = await unit.known_launch()
            found = await self._verdict(unit, running, launch, suspicion)
        except Exception as error:
            log.warning("cannot examine an engine", model=unit.model, why=repr(error))
            return
        if not found:
            log.info("a silent engine was examined and is left alone", replica=unit.id, why=suspicion.value)
        elif _serves(unit, running):
            hung = f"{suspicion}, and {found}: the engine hangs"
            log.error("an engine hangs; it is ended", replica=unit.id, why=hung)
            unwatch(unit)
            await lose(self._context, unit, running, hung, kind="engine_hung", cut=True)

    async def _verdict(self, unit: Unit, running: Running, launch: Launch, suspicion: Suspicion) -> str:
        """Return what shows that the engine hangs; empty if it lives or if nothing can be said."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            probe = group.create_task(_answered(unit, running, launch))
            left = group.create_task(_taken_away(unit, running))
            try:
                first = await self._look(unit, running, launch)
                looks = [first]
                while True:
                    await asyncio.wait(
                        [probe, left], timeout=self._patience.look_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    now = await self._look(unit, running, launch)
                    heard = self._heard(running.host, running.port) >= began
                    if probe.done() or left.done() or heard:
                        return ""
                    if first.answered and now.answered and first.told and now.told not in ("", first.told):
                        return ""
                    looks.append(now)
                    found = self._found(suspicion, loop.time() - began, looks, kind=launch.engine)
                    if found is not None:
                        return found
            finally:
                probe.cancel()
                left.cancel()

    def _found(
        self, suspicion: Suspicion, passed_s: float, looks: Sequence[Signs], *, kind: str
    ) -> str | None:
        """Return the verdict after so long without an answer: a hang, none (empty), or None: look on."""
        patience, sure = self._patience, suspicion is Suspicion.TIMEOUTS
        first, now = looks[0], looks[-1]
        probed = f"a probe got nothing in {passed_s:.0f} s"
        if passed_s >= patience.busy_s:
            return probed if sure else ""
        if now.busy_since(first):
            known = ENGINE_KINDS.get(kind)
            deaf = passed_s >= patience.deaf_s and all(look.told is None for look in looks)
            spins = deaf and known is not None and known.answers_busy
            return f"{probed}, nor did its health, while its processes computed" if spins else None
        idle_s = patience.sure_s if sure else patience.idle_s
        if passed_s >= idle_s and (sure or not any(look.answered for look in looks)):
            return f"{probed} while its processes did nothing"
        if passed_s >= patience.still_s and first.told and now.told and now.answered:
            return f"{probed} while its counters stood still"
        return None

    async def _look(self, unit: Unit, running: Running, launch: Launch) -> Signs:
        told = await unit.equipment.engine.vital_signs(running, launch)
        effort = await asyncio.to_thread(unit.equipment.processes.effort, running)
        return Signs(told=told, effort=effort, at_s=asyncio.get_running_loop().time())


async def _answered(unit: Unit, running: Running, launch: Launch) -> None:
    """Return once a probe is over. Only silence counts: a refusal is life, and an error is no verdict."""
    with suppress(DriverError):
        await unit.equipment.engine.probe(running, launch)


def _serves(unit: Unit, running: Running) -> bool:
    return unit.running is running and unit.replica.state in (State.READY, State.DRAINING)


async def _taken_away(unit: Unit, running: Running) -> None:
    """Return when the engine is parked, lost or exchanged: an open connection would keep it from that."""
    while _serves(unit, running):
        await unit.changed()
