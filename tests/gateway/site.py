"""A gateway in front of toy engines, with a small activator that really holds, grants and counts."""

import asyncio
import json
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from tests.kept_log import KeptLog

from poorwill.compose.clock import SystemClock
from poorwill.compose.dialects.bodies import DIALECTS
from poorwill.compose.dialects.ollama import ollama_handler
from poorwill.core.entries import Entry, Noted, RequestEnded
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError, RequestFault, TryLater
from poorwill.core.ports.activator import Lease, WakeNotice
from poorwill.core.ports.bridging import Bridged
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.keys import NO_LIMITS, KeyLimits
from poorwill.core.ports.names import model_row
from poorwill.core.ports.view import Configuration, ReplicaStatus, WakeInterval
from poorwill.core.settings import Address, FleetSettings, GatewaySettings
from poorwill.core.spend import LimitState
from poorwill.core.words import SECOND_US, ModelName, Phase, ReplicaId, Tier, WakeId, replica_id
from poorwill.gateway.bridge.parts import BridgesTo, HostedApis
from poorwill.gateway.dialects import EngineFacts
from poorwill.gateway.server import GatewayServer, bound_socket, new_server
from poorwill.gateway.upstream.pool import UpstreamPool
from poorwill.hosts.files.reach import Reach
from poorwill.telemetry.admin.listeners import admin_listeners
from poorwill.telemetry.dashboard.captures import Captures
from poorwill.telemetry.dashboard.fleet_dashboard import FleetDashboard
from poorwill.telemetry.dashboard.playground import Playground
from poorwill.telemetry.dashboard.pulls import Pulls
from poorwill.telemetry.metrics import GatewayMetrics

from .toy_history import ToyHistory
from .toy_upstream import Script, ToyUpstream, toy_upstream

M1 = ModelName("m1")
WAKE = WakeId("wake-1")


@dataclass(slots=True, eq=False)
class Held:
    """A place in the toy activator's queue."""

    owner: "ToyActivator"
    model: ModelName
    request: str
    future: asyncio.Future[Lease]
    began_us: int
    priority: int = 0
    wake: WakeId | None = WAKE

    async def lease(self) -> Lease:
        try:
            return await self.future
        except asyncio.CancelledError:
            if self in self.owner.queue:
                self.owner.queue.remove(self)
                self.owner.withdrawn += 1
            elif self.future.done() and not self.future.cancelled() and not self.future.exception():
                self.owner.give_back(self.future.result())
            raise
        finally:
            self.owner.changed.set()

    def notice(self) -> WakeNotice:
        return WakeNotice(
            wake=self.wake,
            phase=Phase.WEIGHTS,
            waited_us=self.owner.clock.now_us() - self.began_us,
            ready_in_us=2 * SECOND_US,
            left_us=90 * SECOND_US,
        )


@dataclass
class ToyActivator:
    """Real in behaviour: first come first served, bounded, leases counted; woken by the test."""

    clock: Clock
    ready: dict[ModelName, ToyUpstream | None]
    limit: int = 1000
    hold_limit: int = 1000
    queue: list[Held] = field(default_factory=list)
    out: list[Lease] = field(default_factory=list)
    granted: int = 0
    returned: int = 0
    withdrawn: int = 0
    lasts: list[ReplicaId | None] | None = None
    """Who served the conversation of each claim last; None: it does not ask, like a lone replica."""
    refuse: PoorwillError | None = None
    no_bridge: bool = False
    bridged: list[str] = field(default_factory=list)
    """Who asked for each request that went over the bridge."""
    reserved: list[int] = field(default_factory=list)
    paid: list[int] = field(default_factory=list)
    crossing: int = 0
    engine_model: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def claim(self, model: ModelName, last: Callable[[], ReplicaId | None] | None = None) -> Lease | None:
        if model not in self.ready:
            raise RequestFault(ErrorCode.MODEL_NOT_FOUND, "no such model")
        if self.lasts is not None and last is not None:
            self.lasts.append(last())
        upstream = self.ready[model]
        if upstream is None or self.queue or len(self.out) >= self.limit:
            return None
        return self._grant(model, upstream)

    def hold(
        self, model: ModelName, *, size_bytes: int, asked_by: str, request: str, priority: int = 0
    ) -> Held:
        if self.refuse is not None:
            raise self.refuse
        if len(self.queue) >= self.hold_limit:
            raise TryLater(ErrorCode.HOLD_QUEUE_FULL, "too many wait", retry_after_s=7)
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        held = Held(self, model, request, future, self.clock.now_us(), priority)
        self.queue.append(held)
        self.changed.set()
        return held

    def bridge(self, model: ModelName, *, asked_by: str, key: str, most_nusd: int) -> Bridged | None:
        if self.no_bridge or self.ready[model] is not None:
            return None
        self.bridged.append(asked_by)
        self.reserved.append(most_nusd)
        self.crossing += 1
        return Bridged(model=model, replica=replica_id(model), wake=WAKE, most_nusd=most_nusd)

    def bridge_over(self, bridged: Bridged, *, cost_nusd: int) -> None:
        self.crossing -= 1
        self.paid.append(cost_nusd)
        self.changed.set()

    def give_back(self, lease: Lease) -> None:
        self.out.remove(lease)
        self.returned += 1
        self.changed.set()
        upstream = self.ready[lease.model]
        if upstream is not None:
            self.wake(lease.model, upstream)

    def retry_after_s(self, model: ModelName) -> int:
        return 11

    def wake(self, model: ModelName, upstream: ToyUpstream) -> None:
        """The replica is ready: grant to those who wait, in order."""
        self.ready[model] = upstream
        while self.queue and len(self.out) < self.limit:
            held = self.queue.pop(0)
            if held.future.cancelled():
                self.withdrawn += 1
            else:
                held.future.set_result(self._grant(model, upstream))

    def fail(self, error: PoorwillError) -> None:
        """Every held request fails."""
        queue, self.queue = self.queue, []
        for held in queue:
            if not held.future.cancelled():
                held.future.set_exception(error)

    def _grant(self, model: ModelName, upstream: ToyUpstream) -> Lease:
        self.granted += 1
        lease = Lease(
            model=model,
            replica=ReplicaId(f"{model}-0"),
            generation=self.granted,
            host=upstream.host,
            port=upstream.port,
            engine_model=self.engine_model,
        )
        self.out.append(lease)
        return lease

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that the activator sees has become true."""
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@dataclass(slots=True)
class SkippingClock(SystemClock):
    """The real clock; a test may skip time."""

    skipped_us: int = 0

    def now_us(self) -> int:
        return SystemClock.now_us(self) + self.skipped_us


@dataclass(slots=True)
class ToyLedger:
    rows: list[Entry] = field(default_factory=list)
    posted: asyncio.Event = field(default_factory=asyncio.Event)
    unavailable: str = ""

    async def record(self, entries: Sequence[Entry]) -> None:
        self.rows.extend(entries)

    def post(self, entries: Sequence[Entry]) -> None:
        self.rows.extend(entries)
        self.posted.set()

    async def row(self, index: int = 0) -> RequestEnded:
        async with asyncio.timeout(5):
            while len(self.rows) <= index:
                self.posted.clear()
                await self.posted.wait()
        row = self.rows[index]
        assert isinstance(row, RequestEnded)
        return row


@dataclass(slots=True)
class ToyKeys:
    secrets: dict[bytes, str] = field(default_factory=dict)
    limited: dict[str, KeyLimits] = field(default_factory=dict)

    @property
    def required(self) -> bool:
        return bool(self.secrets)

    def in_use(self, name: str) -> bool:
        return name in self.secrets.values()

    def name_of(self, credential: bytes) -> str | None:
        return self.secrets.get(credential)

    def limits(self, name: str) -> KeyLimits:
        return self.limited.get(name, NO_LIMITS)


@dataclass(slots=True)
class ToyOperators:
    secrets: dict[bytes, str] = field(default_factory=dict)

    def operator_of(self, credential: bytes) -> str | None:
        return self.secrets.get(credential)

    def is_operator(self, name: str) -> bool:
        return name in self.secrets.values()


@dataclass(slots=True)
class ToyFeed:
    items: asyncio.Queue[Entry | int]
    closed: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __aiter__(self) -> "ToyFeed":
        return self

    async def __anext__(self) -> Entry | int:
        return await self.items.get()

    def rest(self) -> Sequence[Entry]:
        return ()

    def close(self) -> None:
        self.closed = True
        self.over.set()


@dataclass(slots=True)
class ToyFleet:
    """What the admin listener sees."""

    activator: ToyActivator
    asked: list[str] = field(default_factory=list)
    feeds: list[ToyFeed] = field(default_factory=list)
    last_error: str = ""
    spend_limits: Sequence[LimitState] = ()

    def status(self) -> Sequence[ReplicaStatus]:
        interval = WakeInterval(count=3, p50_s=0.5, p95_s=0.9, max_s=1.25, budget_s=60, over_budget=0)
        return [
            ReplicaStatus(
                model=model,
                replica=ReplicaId(f"{model}-0"),
                state="ready" if upstream else "parked",
                tier=None if upstream else Tier.COLD,
                cause="linger" if upstream else "parked.cold",
                since_us=self.activator.clock.now_us() - 2 * SECOND_US,
                in_flight=len(self.activator.out),
                held=len(self.activator.queue),
                wake=interval,
                last_error=self.last_error,
            )
            for model, upstream in self.activator.ready.items()
        ]

    async def devices(self) -> list[dict[str, object]]:
        return []

    def models(self) -> Sequence[ModelName]:
        return list(self.activator.ready)

    async def wake(self, model: ModelName) -> None:
        self._known(model)
        self.asked.append(f"wake {model}")

    async def park(self, model: ModelName, tier: Tier | None) -> None:
        self._known(model)
        self.asked.append(f"park {model} {tier}")

    def configuration(self) -> Configuration:
        return Configuration()

    async def reload(self) -> Configuration:
        return Configuration()

    def limits(self) -> Sequence[LimitState]:
        return self.spend_limits

    def events(self) -> ToyFeed:
        feed = ToyFeed(asyncio.Queue())
        feed.items.put_nowait(Noted(at_us=1, kind="hello", text="first"))
        feed.items.put_nowait(3)
        self.feeds.append(feed)
        return feed

    def _known(self, model: ModelName) -> None:
        if model not in self.activator.ready:
            raise RequestFault(ErrorCode.MODEL_NOT_FOUND, f"no model {model!r}")


@dataclass(slots=True, kw_only=True)
class Site:
    server: GatewayServer
    activator: ToyActivator
    upstream: ToyUpstream
    ledger: ToyLedger
    fleet: ToyFleet
    pool: UpstreamPool
    log: KeptLog
    keys: ToyKeys
    clock: SkippingClock
    operators: ToyOperators
    beside: list[socket.socket]
    """Of the listeners beside the two there always are."""

    @property
    def port(self) -> int:
        return self.server.address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.server.admin_address[1]}"

    def wake(self) -> None:
        self.activator.wake(M1, self.upstream)

    async def held(self, count: int = 1) -> None:
        await self.activator.until(lambda: len(self.activator.queue) >= count)

    async def settled(self) -> None:
        """Wait until every lease is back."""
        await self.activator.until(lambda: not self.activator.out)
        assert self.activator.granted == self.activator.returned

    async def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes on a connection of its own and return everything that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()


QUICK = GatewaySettings(
    listen=Address("127.0.0.1", 0),
    admin=Address("127.0.0.1", 0),
    hosts=("a", "h", "x", "poorwill", "elsewhere"),
    heartbeat_us=20_000,
    commit_after_us=30_000,
    max_body_bytes=200_000,
    max_header_bytes=8_000,
    max_headers=40,
)


async def nowhere(progress: Callable[[int, int], None]) -> str:
    """Download nothing."""
    raise OperatorFault(ErrorCode.WAKE_FAILED, "there is no hub here")


@asynccontextmanager
async def running_site(
    script: Script | None = None,
    *,
    parked: bool = False,
    keys: dict[bytes, str] | None = None,
    models: Sequence[str] = (),
    hosted: HostedApis | None = None,
    served: Sequence[str] | None = None,
    tells_usage: bool = False,
    history: ToyHistory | None = None,
    proven: Callable[[str, int], Awaitable[bool]] | None = None,
    tls: ssl.SSLContext | None = None,
    reach: Callable[[int], Reach] | None = None,
    **changes: object,
) -> AsyncIterator[Site]:
    settings = replace(QUICK, **changes)  # type: ignore[arg-type]
    clock = SkippingClock.started()
    assert isinstance(clock, SkippingClock)
    with tempfile.TemporaryDirectory() as directory:
        async with toy_upstream(script, tls=tls) as upstream:
            elsewhere = dict[tuple[str, int], Reach]()
            if reach is not None:
                there = reach(upstream.port)
                upstream.host, upstream.port = there.url.host, there.url.port
                elsewhere[upstream.host, upstream.port] = there
            ready: dict[ModelName, ToyUpstream | None] = {M1: None if parked else upstream}
            ready.update({ModelName(name): upstream for name in models})
            activator = ToyActivator(clock=clock, ready=ready)
            ledger, log, fleet = ToyLedger(), KeptLog(), ToyFleet(activator)
            ring, operators, beside = ToyKeys(keys or {}), ToyOperators(), list[socket.socket]()

            def bind(host: str, port: int) -> socket.socket:
                beside.append(bound_socket(host, port))
                return beside[-1]

            pool = UpstreamPool(
                timeout_us=settings.upstream_timeout_us, proven=proven, elsewhere=elsewhere.get
            )
            server = new_server(
                settings=settings,
                activator=activator,
                suspect=lambda host, port, why: None,
                pool=pool,
                keys=ring,
                ledger=ledger,
                fleet=fleet,
                admin=partial(
                    admin_listeners,
                    fleet=fleet,
                    dashboard=FleetDashboard(
                        fleet=fleet,
                        history=history or ToyHistory(),
                        playground=Playground(where=lambda: ("127.0.0.1", 9), credential=b"secret"),
                        pulls=Pulls(find=lambda name: (name, nowhere), clock=clock),
                        captures=Captures(settings=partial(FleetSettings, models=()), clock=clock),
                        clock=clock,
                        most_streams=settings.max_events,
                        hosts=(),
                    ),
                    settings=settings,
                    keys=operators,
                    bind=bind,
                    clock=clock,
                    log=log,
                ),
                clock=clock,
                log=log,
                metrics=GatewayMetrics(),
                engines=EngineFacts(
                    rows=lambda may_use: [
                        model_row(name, 1) | {"context_length": 4096}
                        for name in fleet.models()
                        if may_use(name)
                    ],
                    dialects=DIALECTS,
                    paths=lambda model: served,
                    tells_usage=lambda model: tells_usage,
                ),
                directory=directory,
                ollama=ollama_handler(view=fleet),
                bridges_to=BridgesTo(apis=hosted, bridging=activator) if hosted else None,
            )
            async with server:
                yield Site(
                    server=server,
                    activator=activator,
                    upstream=upstream,
                    ledger=ledger,
                    fleet=fleet,
                    pool=pool,
                    log=log,
                    keys=ring,
                    clock=clock,
                    operators=operators,
                    beside=beside,
                )
            defects = [line for line in log.lines if line[0] == "error"]
            assert not defects, defects
            assert not activator.out, "a lease was not given back"
            assert not activator.crossing, "a place on the bridge was not handed back"


def post(body: object, *, path: str = "/v1/chat/completions", headers: Sequence[str] = ()) -> bytes:
    """Return a request as bytes, `Connection: close` unless told otherwise."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: poorwill", f"Content-Length: {len(data)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data
