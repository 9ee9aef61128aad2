"""A fleet that serves, as one `async with`.

Three lifetimes, closed in reverse order: owning (lock, ledger, replicas), serving (leases), accepting
(listeners). The order of the `async with` statements is the order of the shutdown.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from poorwill.bill.cost_gauges import follow_costs
from poorwill.bill.jumps import jumps
from poorwill.compose.bridges import bridged, hosted_apis
from poorwill.compose.dialects.bodies import DIALECTS
from poorwill.compose.dialects.ollama import ollama_handler
from poorwill.compose.drivers.devices import open_devices
from poorwill.compose.drivers.fleet_drivers import Fallback, FleetDrivers
from poorwill.compose.history import LedgerHistory
from poorwill.compose.hub.fetch import downloads
from poorwill.compose.plans import plan_models, remembered_replicas
from poorwill.compose.served.catalogue import Catalogue
from poorwill.compose.served.reload import Reloader, ServedParts, Source
from poorwill.compose.served.resources import FleetResources, fleet_resources
from poorwill.compose.served.suspects import Suspects
from poorwill.config.rules.listeners import listener_problems
from poorwill.core.entries import Noted
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.ports.view import FleetView
from poorwill.core.problems import ConfigFault
from poorwill.core.settings import Address, FleetSettings, SpendSettings
from poorwill.core.words import SECOND_US, ModelName, Tier, replica_id
from poorwill.engines.kinds import ENGINE_KINDS
from poorwill.engines.paths import ENGINE_PATHS
from poorwill.fleet.feeds import Feeds
from poorwill.fleet.fleet import DRAIN_SHARE, Fleet, FleetParts, running_fleet
from poorwill.fleet.journal import Journal
from poorwill.fleet.recovery import ModelPlan
from poorwill.fleet.spending import GuardedKeys, SpendGuard
from poorwill.fleet.sweeps.sweeper import HOSTS_SWEEP_S, sweep_is_due
from poorwill.gateway.acceptor import bound_socket
from poorwill.gateway.admin_side import AdminListener, AdminSide
from poorwill.gateway.bridge.parts import BridgesTo
from poorwill.gateway.dialects import EngineFacts
from poorwill.gateway.server import GatewayServer, new_server
from poorwill.gateway.upstream.pool import UpstreamPool
from poorwill.hosts.devices.nvml import load_nvml
from poorwill.hosts.files.aside import aside
from poorwill.ledger.history.spending import LOOK_EVERY_S, SpendWatch
from poorwill.ledger.keys import LedgerKeys
from poorwill.ledger.ledger import Ledger
from poorwill.telemetry.admin.listeners import admin_listeners
from poorwill.telemetry.dashboard.captures import Captures
from poorwill.telemetry.dashboard.fleet_dashboard import FleetDashboard
from poorwill.telemetry.dashboard.playground import Playground
from poorwill.telemetry.dashboard.pulls import Pulls
from poorwill.telemetry.metrics import GatewayMetrics
from poorwill.telemetry.replica_log import ReplicaLog
from poorwill.telemetry.tracing import open_tracer, trace_wakes


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A fleet that serves: its addresses, and its ladders as they work on this machine."""

    address: str
    admin_address: str
    clock: Clock
    view: FleetView
    ladders: Mapping[ModelName, Sequence[Tier]]
    fallbacks: Sequence[Fallback]
    reload: Callable[[], None]
    """Has the configuration read again, soon."""
    left: Sequence[str]
    """Filled by the end: what runs on although `on_exit` says otherwise, and what the ledger lacks."""

    def where(self) -> Mapping[str, str]:
        """Return the addresses, as the fleet's directory publishes them."""
        return {"address": self.address, "admin": self.admin_address}

    def told(self, settings: FleetSettings) -> Sequence[str]:
        """Return, for people, where the fleet is served, and how."""
        lines = [f"serving http://{self.address} (admin http://{self.admin_address})"]
        if remote := settings.gateway.remote_admin:
            how = "behind a proxy" if remote.behind_proxy else "with TLS"
            lines.append(f"  admin for other machines: {remote.listen} {how}, by an operator's key")
        for model in settings.models:
            bridge = f", {model.hosted.bridge_words}" if model.hosted and model.hosted.bridge else ""
            on = f" on {model.away.named}" if model.away is not None else ""
            parks = f"{model.engine.kind}{on}, parks {' > '.join(self.ladders[model.name])}"
            how = f"at {model.elsewhere.named}, always ready" if model.elsewhere.engine else parks
            lines.append(f"  {model.name}: {how}{bridge}")
        return lines

    def explained(self) -> Sequence[str]:
        """Return, for people, how each model is parked here and why not otherwise."""
        lines = [f"{model}: parks {' > '.join(tiers)}" for model, tiers in self.ladders.items()]
        return [*lines, *map(str, self.fallbacks)]


@asynccontextmanager
async def serving_fleet(
    settings: FleetSettings,
    *,
    env: Mapping[str, str],
    log: Log,
    source: Source | None = None,
) -> AsyncIterator[Serving]:
    """Serve a fleet until the context ends, then shut it down in order within its `exit_s`.

    `source` is where the configuration can be read again. Raises OperatorFault(IN_USE) if another poorwill
    holds the directory or an address is taken, ConfigFault if the machine or the configuration does not allow
    it. Nothing is left behind then.
    """
    tracer = open_tracer(env)
    async with fleet_resources(settings, env=env, log=log) as own:
        plans, fallbacks = await plan_models(settings, own.fleet_drivers, own.ledger, env=env, log=log)
        apis = hosted_apis(settings, env=env, log=log)
        pool = _pool(settings, own.fleet_drivers)
        journal, metrics, feeds = _journal(own.ledger, log)
        keys = _keys(settings, own.ledger, log)
        guard = spend_guard(own.ledger, settings.spend)
        parts = _fleet_parts(settings, own, plans, journal, feeds, pool, guard, log)
        async with running_fleet(parts) as fleet:
            suspects = Suspects(context=fleet.controller.context, heard=pool.heard)
            dashboard = _dashboard(settings, own, fleet, source, env, where=lambda: gateway.address)
            gateway = new_server(
                settings=settings.gateway,
                activator=fleet.activator,
                suspect=suspects.suspect,
                pool=pool,
                keys=_guarded(keys, guard, own.clock, dashboard),
                ledger=journal,
                fleet=fleet.view,
                admin=_admin(settings, own, fleet.view, log, dashboard, keys),
                clock=own.clock,
                log=log,
                metrics=metrics,
                engines=_engine_facts(fleet, own.clock, dashboard.captures),
                ollama=ollama_handler(view=fleet.view),
                directory=settings.directory,
                bridges_to=BridgesTo(apis=bridged(apis), bridging=fleet.bridging),
            )
            served = ServedParts(
                fleet=fleet, gateway=gateway, guard=guard, keys=keys, own=own, env=env, log=log
            )
            source = source or Source(read=lambda: settings)
            reloader = Reloader(parts=served, source=source, clock=own.clock, log=log)
            async with (
                gateway,
                background(keys.follow()),
                background(suspects.follow()),
                background(dashboard.pulls.work()),
                background(_told(trace_wakes(fleet.view.events, tracer, log=log), own, metrics, log)),
            ):
                serving = await aside(_published, gateway, own, fleet.view, plans, fallbacks, reloader.ask)
                try:
                    async with background(reloader.work()):  # no model may come once the fleet is closed
                        yield serving
                finally:
                    await _close(gateway, fleet, fleet.reshaper.settings)


def _pool(settings: FleetSettings, drivers: FleetDrivers) -> UpstreamPool:
    timeout_us = settings.gateway.upstream_timeout_us
    return UpstreamPool(
        timeout_us=timeout_us, proven=drivers.proven, elsewhere=drivers.reached, hosts=drivers.hosts
    )


def _fleet_parts(
    settings: FleetSettings,
    own: FleetResources,
    plans: Sequence[ModelPlan],
    journal: Journal,
    feeds: Feeds,
    pool: UpstreamPool,
    guard: SpendGuard,
    log: Log,
) -> FleetParts:
    recovered = own.ledger.recovered()
    return FleetParts(
        settings=settings,
        plans=plans,
        remembered=remembered_replicas(recovered),
        last_seen_us=recovered.last_us,
        journal=journal,
        feeds=feeds,
        connections=pool,
        guard=guard,
        clock=own.clock,
        wall_step_us=own.clock.wall_step_us,
        log=log,
        leave=own.holding.leave,
        devices=open_devices(settings, load_nvml()),
        sweep_due=sweep_is_due if settings.hosts is None else partial(asyncio.sleep, HOSTS_SWEEP_S),
    )


async def _close(gateway: GatewayServer, fleet: Fleet, settings: FleetSettings) -> None:
    """Close the fleet; what a hosted API answers meanwhile has as long as what replicas answer.

    What is in flight finishes through the gateway before that closes. Cancelled: as `Fleet.close`.
    """
    gateway.stop_accepting()
    ends = asyncio.get_running_loop().time() + settings.exit_us * DRAIN_SHARE / SECOND_US
    await fleet.close(settings.on_exit, settings.exit_us)
    with suppress(TimeoutError):
        async with asyncio.timeout_at(ends):
            await gateway.drained()


def _admin(
    settings: FleetSettings,
    own: FleetResources,
    view: FleetView,
    log: Log,
    dashboard: FleetDashboard,
    keys: LedgerKeys,
) -> Callable[[AdminSide], AdminListener]:
    """Return what makes the admin listeners of the gateway."""
    return partial(
        admin_listeners,
        fleet=view,
        dashboard=dashboard,
        settings=settings.gateway,
        keys=keys,
        bind=bound_socket,
        clock=own.clock,
        log=log,
    )


def _guarded(keys: LedgerKeys, guard: SpendGuard, clock: Clock, dashboard: FleetDashboard) -> GuardedKeys:
    """Return the keys as the gateway asks for them."""
    operator = dashboard.playground.credential
    return GuardedKeys(keys=keys, guard=guard, now_us=clock.now_us, operator=operator)


def _dashboard(
    settings: FleetSettings,
    own: FleetResources,
    fleet: Fleet,
    source: Source | None,
    env: Mapping[str, str],
    *,
    where: Callable[[], tuple[str, int]],
) -> FleetDashboard:
    """Return what people look at."""
    logs, path = Path(settings.directory, "logs"), source.path if source else None
    return FleetDashboard(
        fleet=fleet.view,
        history=LedgerHistory(ledger=own.ledger, logs=logs, fleet=path),
        playground=Playground(where=where),
        pulls=Pulls(find=downloads(lambda: fleet.reshaper.settings.models, env=env), clock=own.clock),
        captures=Captures(settings=lambda: fleet.reshaper.settings, clock=own.clock),
        clock=own.clock,
        most_streams=settings.gateway.max_events,
        hosts=own.fleet_drivers.hosts.values(),
    )


async def _told(
    traced: Coroutine[Any, Any, None], own: FleetResources, metrics: GatewayMetrics, log: Log
) -> None:
    """Have traces and metrics told of what happens and what it costs, until cancelled."""
    history = LedgerHistory(ledger=own.ledger, logs=Path())
    await asyncio.gather(traced, follow_costs(history.costs, metrics, log))


def _journal(ledger: Ledger, log: Log) -> tuple[Journal, GatewayMetrics, Feeds]:
    """Return the journal, and the metrics and feeds that it tells, beside the log, what is written."""
    metrics, feeds = GatewayMetrics(), Feeds()
    listeners = metrics.count_entry, ReplicaLog(log=log).write, feeds.put
    return Journal(ledger=ledger, listeners=listeners), metrics, feeds


def _keys(settings: FleetSettings, ledger: Ledger, log: Log) -> LedgerKeys:
    """Return the fleet's keys. Raises ConfigFault if a public address would be open to everybody."""
    keys = LedgerKeys(path=ledger.path, now_us=ledger.clock.now_us, log=log)
    keys.load()
    problems = listener_problems(settings.gateway, keys_configured=keys.required, operators=keys.operators)
    if problems:
        raise ConfigFault(problems, source=settings.source)
    return keys


def _engine_facts(fleet: Fleet, clock: Clock, captures: Captures) -> EngineFacts:
    """Return what the gateway knows of the models' engines, as they are configured now."""
    units = fleet.controller.units

    def kind(model: ModelName) -> str:
        unit = units.get(replica_id(model))
        return "" if unit is None else unit.equipment.engine.name

    def tells_usage(model: ModelName) -> bool:
        known = ENGINE_KINDS.get(kind(model))
        return known is not None and known.tells_usage

    catalogue = Catalogue(fleet, started_us=clock.now_us())
    return EngineFacts(
        rows=catalogue.rows,
        meaning=catalogue.meaning,
        dialects=DIALECTS,
        paths=lambda model: ENGINE_PATHS.get(kind(model)),
        tells_usage=tells_usage,
        asked=captures.take,
    )


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


def _published(
    gateway: GatewayServer,
    own: FleetResources,
    view: FleetView,
    plans: Sequence[ModelPlan],
    fallbacks: Sequence[Fallback],
    reload: Callable[[], None],
) -> Serving:
    """Return what serves now, and publish its addresses in the fleet's directory."""
    serving = Serving(
        address=str(Address(*gateway.address)),
        admin_address=str(Address(*gateway.admin_address)),
        clock=own.clock,
        view=view,
        ladders={plan.settings.model: plan.settings.park.ladder for plan in plans},
        fallbacks=fallbacks,
        reload=reload,
        left=own.holding.left,
    )
    own.holding.publish(what="poorwill serve", **serving.where())
    return serving
