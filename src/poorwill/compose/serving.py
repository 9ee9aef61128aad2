"""A fleet that serves, as one `async with`.

Three lifetimes, closed in reverse order: owning (lock, ledger, replicas), serving (leases), accepting
(listeners). The order of the `async with` statements is the order of the shutdown.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poorwill.clock import SystemClock
from poorwill.compose.places import ledger_path
from poorwill.compose.plans import plan_model, remembered_replicas
from poorwill.compose.tiers import Fallback, open_workshop
from poorwill.core.entries import Noted
from poorwill.core.errors import ConfigFault
from poorwill.core.ports import Clock, FleetView, Log
from poorwill.core.settings import FleetSettings, SpendSettings
from poorwill.core.words import ModelName, Tier
from poorwill.drivers.process import become_subreaper
from poorwill.fleet.fleet import Fleet, running_fleet
from poorwill.fleet.journal import Journal
from poorwill.fleet.lock import hold_directory
from poorwill.fleet.spending import GuardedKeys, SpendGuard
from poorwill.gateway.keys import listener_problems
from poorwill.gateway.pool import UpstreamPool
from poorwill.gateway.server import GatewayServer, new_server
from poorwill.ledger.jumps import jumps
from poorwill.ledger.keys import LedgerKeys
from poorwill.ledger.ledger import Ledger, last_instant_us, open_ledger
from poorwill.ledger.rates import sync_rates
from poorwill.ledger.spending import LOOK_EVERY_S, SpendWatch
from poorwill.telemetry.metrics import GatewayMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A fleet that serves: where, and what became of the configured ladders on this machine."""

    address: str
    admin_address: str
    clock: Clock
    view: FleetView
    ladders: Mapping[ModelName, Sequence[Tier]]
    fallbacks: Sequence[Fallback]

    def explained(self) -> Sequence[str]:
        """Return, for people, how each model is parked here and why not otherwise."""
        lines = [f"{model}: parks {' > '.join(tiers)}" for model, tiers in self.ladders.items()]
        return [*lines, *map(str, self.fallbacks)]


@asynccontextmanager
async def serving_fleet(
    settings: FleetSettings, *, env: Mapping[str, str], log: Log
) -> AsyncIterator[Serving]:
    """Serve a fleet until the context ends, then shut it down in order within its `exit_s`.

    Raises OperatorFault(IN_USE) where another poorwill holds the directory or an address is taken,
    ConfigFault where the machine or the configuration does not allow it. Nothing is left behind then.
    """
    directory = Path(settings.directory)
    with hold_directory(directory, what="poorwill serve") as holding:
        clock = SystemClock.started(not_before_us=last_instant_us(ledger_path(settings)))
        become_subreaper()
        workshop = await open_workshop(settings, env=env, clock=clock, log=log)
        async with open_ledger(ledger_path(settings), clock=clock, log=log) as ledger:
            for told in await ledger.thread.call(
                lambda db: sync_rates(db, settings.rates, now_us=clock.now_us())
            ):
                log.info("rates", what=told)
            recovered = ledger.recovered()
            planned = [
                plan_model(
                    model,
                    fleet=settings,
                    workshop=workshop,
                    recovered=recovered,
                    env=env,
                    clock=clock,
                )
                for model in settings.models
            ]
            fallbacks = [fallback for _, found in planned for fallback in found]
            for fallback in fallbacks:
                log.warning("a tier does not work here", model=fallback.model, why=str(fallback))
            metrics = GatewayMetrics()
            journal = Journal(ledger=ledger)
            pool = UpstreamPool(timeout_us=settings.gateway.upstream_timeout_us)
            keys = LedgerKeys(path=ledger.path, log=log)
            keys.load()
            problems = listener_problems(settings.gateway, keys_configured=keys.required)
            if problems:
                raise ConfigFault(problems, source=settings.source)
            guard = spend_guard(ledger, settings.spend)
            await guard.first()
            async with running_fleet(
                plans=[plan for plan, _ in planned],
                remembered=remembered_replicas(recovered),
                last_seen_us=recovered.last_us,
                memory_bytes=settings.memory_bytes,
                reap_orphans=settings.reap_orphans,
                on_exit=settings.on_exit,
                exit_us=settings.exit_us,
                journal=journal,
                connections=pool,
                clock=clock,
                wall_step_us=clock.wall_step_us,
                log=log,
                guard=guard,
            ) as fleet:
                gateway = new_server(
                    settings=settings.gateway,
                    activator=fleet.activator,
                    pool=pool,
                    keys=GuardedKeys(keys=keys, guard=guard, now_us=clock.now_us),
                    ledger=journal,
                    fleet=fleet.view,
                    clock=clock,
                    log=log,
                    metrics=metrics,
                    dashboard=b"",
                )
                async with gateway, background(keys.follow()):
                    serving = Serving(
                        address=_address(gateway.address),
                        admin_address=_address(gateway.admin_address),
                        clock=clock,
                        view=fleet.view,
                        ladders={p.settings.model: p.settings.park.ladder for p, _ in planned},
                        fallbacks=fallbacks,
                    )
                    holding.publish(
                        what="poorwill serve",
                        address=serving.address,
                        admin=serving.admin_address,
                    )
                    try:
                        yield serving
                    finally:
                        await _let_go(gateway, fleet, settings)


def spend_guard(ledger: Ledger, limits: SpendSettings) -> SpendGuard:
    """Return the spend breaker over a ledger."""
    watch = SpendWatch(ledger=ledger, limits=limits)

    async def find_jumps() -> Sequence[Noted]:
        now_us = ledger.clock.now_us()
        found = await ledger.read(lambda db: jumps(db, now_us=now_us))
        return [jump.noted(now_us) for jump in found]

    return SpendGuard(look=watch.look, find_jumps=find_jumps, every_s=LOOK_EVERY_S)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something for as long as the context lasts."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()


async def _let_go(gateway: GatewayServer, fleet: Fleet, settings: FleetSettings) -> None:
    """Accept no more, fail what is held, let what is in flight finish; then replicas come to rest."""
    gateway.stop_accepting()
    await fleet.close(settings.on_exit, settings.exit_us)


def _address(bound: tuple[str, int]) -> str:
    host, port = bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
