"""Reads the configuration again while it is being served, and has every part follow what changed.

One reload at a time, in a task of its own: whoever asked may leave. Everything that can fail comes first, so
that a faulty configuration changes nothing; log, ledger, status and dashboard say so.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from poorwill.compose.plans import plan_models
from poorwill.compose.served.resources import FleetResources
from poorwill.config.changes import FleetChange, fleet_change
from poorwill.config.rules.listeners import listener_problems
from poorwill.core.entries import Noted
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError, TryLater
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.ports.view import Configuration
from poorwill.core.problems import ConfigFault
from poorwill.core.settings import FleetSettings
from poorwill.fleet.fleet import Fleet
from poorwill.fleet.recovery import ModelPlan
from poorwill.fleet.reshaping import Reshaping
from poorwill.fleet.spending import SpendGuard
from poorwill.gateway.server import GatewayServer
from poorwill.ledger.history.spending import SpendWatch
from poorwill.ledger.keys import LedgerKeys
from poorwill.ledger.rates import sync_rates

LOOK_S = 1.0
"""How often a watched file is looked at. It is read once it has not changed between two looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedParts:
    """What of a served fleet follows a configuration."""

    fleet: Fleet
    gateway: GatewayServer
    guard: SpendGuard
    keys: LedgerKeys
    own: FleetResources
    env: Mapping[str, str]
    log: Log

    async def follow(self, change: FleetChange) -> None:
        """Go from the configuration in force to another. Raises PoorwillError; nothing has changed then.

        Cancelled before the first model is touched: likewise.
        """
        settings, ledger, drivers = change.settings, self.own.ledger, self.own.fleet_drivers
        assert drivers.more is not None
        await drivers.more(settings)
        touched = (*change.added, *change.renewed, *change.adjusted)
        only = replace(settings, models=touched)
        plans, _ = await plan_models(only, drivers, ledger, env=self.env, log=self.log)
        by_model = {plan.settings.model: plan for plan in plans}

        def of(models: Sequence[object]) -> list[ModelPlan]:
            return [by_model[model.name] for model in touched if model in models]

        for told in await ledger.thread.call(
            lambda db: sync_rates(db, settings.rates, now_us=ledger.clock.now_us())
        ):
            self.log.info("rates", what=told)
        self.guard.look = SpendWatch(ledger=ledger, limits=settings.spend).look
        self.own.priorities.update(
            {id: model.priority for model in settings.models for id in model.replica_ids}
        )
        self.gateway.configure(settings.gateway)
        await self.fleet.reshaper.reshape(
            Reshaping(
                settings=settings,
                removed=change.removed,
                added=of(change.added),
                renewed=of(change.renewed),
                adjusted=of(change.adjusted),
            )
        )
        await self.guard.look_again(self.fleet.controller)


FileMark = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a configuration can be read again."""

    read: Callable[[], FleetSettings]
    """Blocks. Raises ConfigFault."""
    path: Path | None = None
    """The file that is watched if `reload_on_change` says so."""
    seen: FileMark | None = None
    """How it looked before it was read first."""


@dataclass(slots=True, kw_only=True)
class Reloader:
    """Has a served fleet follow its file."""

    parts: ServedParts
    source: Source
    clock: Clock
    log: Log
    _waiting: list[asyncio.Future[Configuration]] = field(default_factory=list)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    def ask(self) -> None:
        """Have the configuration read again, soon. What comes of it is logged."""
        self._asked.set()

    async def reload(self) -> Configuration:
        """Read the configuration again and return what changed. Raises PoorwillError if it is faulty.

        Cancelled: the reload goes on.
        """
        answer: asyncio.Future[Configuration] = asyncio.get_running_loop().create_future()
        if self._over:
            self._give_up([answer])
        self._waiting.append(answer)
        self.ask()
        return await answer

    async def work(self) -> None:
        """Reload whenever asked, and when a watched file changes, until cancelled."""
        view = self.parts.fleet.view
        view.loaded, view.reloads = Configuration(since_us=self.clock.now_us()), self.reload
        try:
            async with asyncio.TaskGroup() as group:
                if self.source.path is not None:
                    group.create_task(self._watch(self.source.path))
                while True:
                    await self._asked.wait()
                    self._asked.clear()
                    waiting, self._waiting = self._waiting, []
                    await self._answer(waiting)
        finally:
            self._over = True
            self._give_up(self._waiting)

    async def _answer(self, waiting: Sequence[asyncio.Future[Configuration]]) -> None:
        """Reload once, and tell those who asked before it began."""
        try:
            loaded = await self._reload()
        except PoorwillError as fault:
            told = self._refuse(fault)
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(told)
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise
        else:
            for answer in waiting:
                if not answer.done():
                    answer.set_result(loaded)

    def _give_up(self, waiting: Sequence[asyncio.Future[Configuration]]) -> None:
        for answer in waiting:
            if not answer.done():
                late = TryLater(ErrorCode.DRAINING, "poorwill is shutting down", retry_after_s=5)
                answer.set_exception(late)

    async def _reload(self) -> Configuration:
        parts = self.parts
        await asyncio.to_thread(parts.keys.load)
        new = await asyncio.to_thread(self.source.read)
        keys = parts.keys
        problems = listener_problems(new.gateway, keys_configured=keys.required, operators=keys.operators)
        if problems:
            raise ConfigFault(problems, source=new.source)
        change = fleet_change(parts.fleet.reshaper.settings, new)
        try:
            await parts.follow(change)
        except PoorwillError:
            raise
        except Exception as error:  # a defect must not end what is being served
            self.log.error("a reload failed with an unexpected error", error=repr(error))
            raise OperatorFault(ErrorCode.INTERNAL, f"the reload failed: {error!r}") from error
        now = self.clock.now_us()
        changes, waits = tuple(change.changes), tuple(change.needs_restart)
        loaded = Configuration(since_us=now, changes=changes, needs_restart=waits)
        parts.fleet.view.loaded = loaded
        self.log.info("the configuration was read again", changes=list(changes))
        if waits:
            self.log.warning("some of the configuration needs a restart", keys=list(waits))
        self._note("reloaded", "; ".join(changes) or "nothing changed")
        return loaded

    def _refuse(self, fault: PoorwillError) -> PoorwillError:
        problems = [str(one) for one in fault.problems] if isinstance(fault, ConfigFault) else [str(fault)]
        view, now = self.parts.fleet.view, self.clock.now_us()
        view.loaded = replace(view.loaded, refused_us=now, problems=tuple(problems))
        self.log.error("the configuration is faulty: nothing was changed", problems=problems)
        self._note("reload_refused", "; ".join(problems))
        what = "\n  ".join(["the configuration is faulty; nothing was changed", *problems])
        return OperatorFault(fault.code, what)

    def _note(self, kind: str, text: str) -> None:
        self.parts.fleet.controller.journal.post(
            [Noted(at_us=self.clock.now_us(), kind=kind, text=text[:2_000])]
        )

    async def _watch(self, path: Path) -> None:
        """Reload when the file has changed, and does so no more, if `reload_on_change` says so."""
        known = last = self.source.seen
        while True:
            await asyncio.sleep(LOOK_S)
            mark = await asyncio.to_thread(file_mark, path)
            if mark != known and mark == last and mark is not None:
                known = mark
                if self.parts.fleet.reshaper.settings.reload_on_change:
                    self.ask()
            last = mark


def file_mark(path: Path) -> FileMark | None:
    """Return what changes whenever a file is written or replaced; None while there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
