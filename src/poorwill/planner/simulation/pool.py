"""A fleet on paper: many tenants' models share a pool of hosts that are paid throughout.

A model that is wanted is woken on a host with room for it; if none has room, idle models give way, the
longest idle first, by the production rule (`policies.placement`): never a busy one, never one that has only
just come. If none can give way, the request waits until somebody falls idle. Models stay until they
are evicted: the host is paid anyway.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from poorwill.core.money import rounded
from poorwill.core.words import ReplicaId
from poorwill.hosts.files.traces.trace import Micros
from poorwill.planner.simulation.outcome import Waits, waits_of
from poorwill.policies.placement.victims import MIN_RESIDENCE_US, Occupant, choose_victims

HOSTS_ASKED = 8
"""How many hosts are tried when one model needs room; those of the longest idle models come first."""
PROGRESS_EVERY = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant: a model, its size and its requests."""

    name: str
    bytes: int
    arrival_us: Micros
    service_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Hosts of one kind."""

    hosts: int
    bytes_per_host: int
    active_nusd_h: int
    """Of one host."""
    wake_us: int
    park_us: int
    span_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOutcome:
    """What sharing a pool costs and how long requests wait."""

    pool: Pool
    tenants: int
    waits: Waits
    wakes: int
    evictions: int
    starved: int
    """Wakes that had to wait until another model could be evicted."""
    evicted: Counter[str]
    """How often each tenant was evicted."""
    evicting: Counter[str]
    """How often others were evicted for each tenant."""
    useful_us: int
    """Of all hosts together: time with at least one request in service on the host."""

    @property
    def cost_nusd(self) -> int:
        """Return what the pool costs over the span."""
        return rounded(self.pool.hosts * self.pool.active_nusd_h * self.pool.span_us)

    @property
    def duty_cycle(self) -> float:
        """Return useful over paid host time."""
        return self.useful_us / (self.pool.hosts * self.pool.span_us)


@dataclass(slots=True, eq=False)
class _Model:
    """One tenant's model now."""

    tenant: Tenant
    host: "_Host | None" = None
    ready_us: int = 0
    """When it is or was ready; in the future while it wakes."""
    in_flight: int = 0
    idle_since_us: int = 0
    held: list[tuple[int, int]] = field(default_factory=list)
    """Arrival and service of requests that wait."""


@dataclass(slots=True, eq=False)
class _Host:
    """One host now."""

    free_bytes: int
    models: dict[str, _Model] = field(default_factory=dict)
    in_flight: int = 0
    busy_since_us: int = 0


def share(
    tenants: Sequence[Tenant], pool: Pool, *, progress: Callable[[int, int], None] | None = None
) -> PoolOutcome:
    """Return the waits and costs of sharing the pool. `progress` receives the requests done and in all.

    Every model must fit on a host; `misfits` says which do not.
    """
    run = _PoolRun(tenants, pool)
    order = np.argsort(np.concatenate([t.arrival_us for t in tenants]), kind="stable")
    arrivals = np.concatenate([t.arrival_us for t in tenants])[order].tolist()
    services = np.concatenate([t.service_us for t in tenants])[order].tolist()
    whose = np.repeat(np.arange(len(tenants)), [len(t.arrival_us) for t in tenants])[order].tolist()
    for index, (at, service, owner) in enumerate(zip(arrivals, services, whose, strict=True)):
        if progress is not None and index % PROGRESS_EVERY == 0:
            progress(index, len(arrivals))
        run.advance(at)
        run.request(run.models[owner], at, service)
    run.advance(2**62)
    return run.outcome(len(arrivals))


def misfits(tenants: Sequence[Tenant], pool: Pool) -> list[str]:
    """Return the tenants whose models fit on no host."""
    return [tenant.name for tenant in tenants if tenant.bytes > pool.bytes_per_host]


class _PoolRun:
    """A replay of the requests through the pool."""

    def __init__(self, tenants: Sequence[Tenant], pool: Pool) -> None:
        self.pool = pool
        self.models = [_Model(tenant) for tenant in tenants]
        self.by_name = {model.tenant.name: model for model in self.models}
        self.hosts = [_Host(pool.bytes_per_host) for _ in range(pool.hosts)]
        self.events: list[tuple[int, int, _Model | None]] = []
        """(when, serial, the tenant whose request is done or whose wake ends; None: retry waiting wakes)."""
        self.serial = 0
        self.idle: OrderedDict[str, _Model] = OrderedDict()
        """Idle residents, the longest idle first."""
        self.starving: deque[_Model] = deque()
        self.retries = False
        self.waits: list[int] = []
        self.wakes = self.evictions = self.starved = self.useful_us = 0
        self.evicted: Counter[str] = Counter()
        self.evicting: Counter[str] = Counter()

    def advance(self, until: int) -> None:
        """Let requests finish and wakes end up to an instant."""
        while self.events and self.events[0][0] <= until:
            at, _, model = heappop(self.events)
            if model is None:
                self.retries = False
                self.feed_starving(at)
            elif model.held and model.ready_us == at:
                self.woken(model, at)
            else:
                self.done(model, at)

    def request(self, model: _Model, at: int, service: int) -> None:
        """A request arrives: serve it, or hold it and wake its model."""
        if model.host is not None and model.ready_us <= at:
            self.serve(model, at, service)
            return
        model.held.append((at, service))
        if model.host is None and len(model.held) == 1 and not self.wake(model, at):
            self.starved += 1
            self.starving.append(model)
            self.try_again(at)

    def serve(self, model: _Model, at: int, service: int) -> None:
        """Start a request."""
        host = model.host
        assert host is not None
        if model.in_flight == 0:
            self.idle.pop(model.tenant.name, None)
        model.in_flight += 1
        if host.in_flight == 0:
            host.busy_since_us = at
        host.in_flight += 1
        self.at(at + service, model)

    def done(self, model: _Model, at: int) -> None:
        """A request is done."""
        host = model.host
        assert host is not None
        host.in_flight -= 1
        if host.in_flight == 0:
            span = self.pool.span_us
            self.useful_us += min(at, span) - min(host.busy_since_us, span)
        model.in_flight -= 1
        if model.in_flight == 0:
            model.idle_since_us = at
            self.idle[model.tenant.name] = model
            self.feed_starving(at)

    def woken(self, model: _Model, at: int) -> None:
        """A wake ends: serve every request it held."""
        held, model.held = model.held, []
        for arrived, service in held:
            self.waits.append(at - arrived)
            self.serve(model, at, service)

    def wake(self, model: _Model, at: int) -> bool:
        """Start a wake if there is room, or if room can be made; False if there is none."""
        need = model.tenant.bytes
        fitting = [host for host in self.hosts if host.free_bytes >= need]
        delay = self.pool.wake_us
        if fitting:
            host = min(fitting, key=lambda one: one.free_bytes)
        else:
            found = self.make_room(model, at)
            if found is None:
                return False
            host, delay = found, self.pool.wake_us + self.pool.park_us
        model.host, model.ready_us = host, at + delay
        host.models[model.tenant.name] = model
        host.free_bytes -= need
        self.wakes += 1
        self.at(model.ready_us, model)
        return True

    def make_room(self, model: _Model, at: int) -> _Host | None:
        """Evict idle models for another, on the host of the longest idle one that can make room."""
        asked: list[_Host] = []
        for resident in self.idle.values():
            host = resident.host
            assert host is not None
            if host in asked:
                continue
            asked.append(host)
            occupants = [_occupant(one, at) for one in host.models.values()]
            victims = choose_victims(
                occupants, need=model.tenant.bytes, total=self.pool.bytes_per_host, priority=0, now_us=at
            )
            if victims:
                for victim in victims:
                    self.evict(self.by_name[victim], model)
                return host
            if len(asked) == HOSTS_ASKED:
                return None
        return None

    def evict(self, victim: _Model, for_whom: _Model) -> None:
        """Take an idle model off its host."""
        host = victim.host
        assert host is not None and victim.in_flight == 0
        del host.models[victim.tenant.name], self.idle[victim.tenant.name]
        host.free_bytes += victim.tenant.bytes
        victim.host = None
        self.evictions += 1
        self.evicted[victim.tenant.name] += 1
        self.evicting[for_whom.tenant.name] += 1

    def feed_starving(self, at: int) -> None:
        """Wake the models that wait for room, first come, first served, as far as they fit now."""
        while self.starving and self.wake(self.starving[0], at):
            self.starving.popleft()
        if self.starving:
            self.try_again(at)

    def try_again(self, at: int) -> None:
        """Retry the waiting wakes once the newest model may be evicted."""
        if not self.retries:
            self.retries = True
            self.at(at + MIN_RESIDENCE_US, None)

    def at(self, when: int, model: _Model | None) -> None:
        """Schedule an event."""
        self.serial += 1
        heappush(self.events, (when, self.serial, model))

    def outcome(self, requests: int) -> PoolOutcome:
        """Return the account."""
        return PoolOutcome(
            pool=self.pool,
            tenants=len(self.models),
            waits=waits_of(requests, np.asarray(self.waits, np.int64)),
            wakes=self.wakes,
            evictions=self.evictions,
            starved=self.starved,
            evicted=self.evicted,
            evicting=self.evicting,
            useful_us=self.useful_us,
        )


def _occupant(model: _Model, at: int) -> Occupant:
    return Occupant(
        replica=ReplicaId(model.tenant.name),
        bytes=model.tenant.bytes,
        priority=0,
        busy=model.in_flight > 0 or model.ready_us > at,
        leaving=False,
        ready_since_us=model.ready_us,
        idle_since_us=model.idle_since_us,
    )
