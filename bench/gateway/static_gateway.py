"""A gateway alone, for the benchmark: one model that is always ready, one that never is.

`m1` is served by the engine on the given port; a request for `parked` is held until its budget ends. The
gateway is the real one with the real metrics; the ledger counts its rows and forgets them.
"""

import asyncio
import gc
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NoReturn

import uvloop

from poorwill.compose.clock import SystemClock
from poorwill.compose.dialects.bodies import DIALECTS
from poorwill.compose.dialects.ollama import ollama_handler
from poorwill.core.entries import Entry
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.ports.activator import Lease, WakeNotice
from poorwill.core.ports.keys import NO_LIMITS, KeyLimits
from poorwill.core.ports.view import EventFeed, ReplicaStatus
from poorwill.core.settings import Address, EngineUrl, FleetSettings, GatewaySettings
from poorwill.core.spend import LimitState
from poorwill.core.words import SECOND_US, ModelName, Phase, ReplicaId, WakeId
from poorwill.gateway.dialects import EngineFacts
from poorwill.gateway.server import bound_socket, new_server
from poorwill.gateway.upstream.pool import UpstreamPool
from poorwill.hosts.files.reach import Reach, verifying
from poorwill.telemetry.admin.listeners import admin_listeners
from poorwill.telemetry.dashboard.captures import Captures
from poorwill.telemetry.dashboard.fleet_dashboard import FleetDashboard
from poorwill.telemetry.dashboard.playground import Playground
from poorwill.telemetry.dashboard.pulls import Pulls
from poorwill.telemetry.metrics import GatewayMetrics

READY, PARKED = ModelName("m1"), ModelName("parked")
BUDGET_US = 600 * SECOND_US


class Held:
    """A place in a queue that does not move."""

    wake: WakeId | None = WakeId("wake-1")

    def __init__(self, began_us: int, clock: SystemClock) -> None:
        self._began_us = began_us
        self._clock = clock

    async def lease(self) -> Lease:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("never granted")

    def notice(self) -> WakeNotice:
        waited_us = self._clock.now_us() - self._began_us
        left_us = BUDGET_US - waited_us
        return WakeNotice(
            wake=self.wake,
            phase=Phase.WEIGHTS,
            waited_us=waited_us,
            ready_in_us=None,
            left_us=left_us,
        )


class StaticActivator:
    """Grants every claim on `m1`; counts what is out."""

    def __init__(self, host: str, port: int, clock: SystemClock) -> None:
        self._lease = Lease(model=READY, replica=ReplicaId("m1-0"), generation=1, host=host, port=port)
        self._clock = clock
        self.out = 0

    def claim(self, model: ModelName, last: object = None) -> Lease | None:
        if model == READY:
            self.out += 1
            return self._lease
        if model == PARKED:
            return None
        raise RequestFault(ErrorCode.MODEL_NOT_FOUND, "no such model")

    def hold(self, model: ModelName, *, size_bytes: int, **_: object) -> Held:
        return Held(self._clock.now_us(), self._clock)

    def give_back(self, lease: Lease) -> None:
        self.out -= 1

    def retry_after_s(self, model: ModelName) -> int:
        return 1


class CountingLedger:
    """Counts rows."""

    unavailable = ""
    rows = 0

    def dropped_rows(self) -> int:
        return 0

    async def record(self, entries: Sequence[Entry]) -> None:
        self.rows += len(entries)

    def post(self, entries: Sequence[Entry]) -> None:
        self.rows += len(entries)


class Keys:
    """One key, so that its check is part of what is measured."""

    required = True

    def in_use(self, name: str) -> bool:
        return True

    def limits(self, name: str) -> KeyLimits:
        return NO_LIMITS

    def operator_of(self, credential: bytes) -> str | None:
        return None

    def is_operator(self, name: str) -> bool:
        return False

    def name_of(self, credential: bytes) -> str | None:
        return "bench" if credential == b"sk-bench" else None


class Quiet:
    """A log for nobody, but defects must be seen."""

    def info(self, message: str, /, **fields: object) -> None:
        pass

    def warning(self, message: str, /, **fields: object) -> None:
        pass

    def error(self, message: str, /, **fields: object) -> None:
        print(message, fields, file=sys.stderr)  # noqa: TID251


class Fleet:
    """Two models and nothing to tell of them."""

    def status(self) -> Sequence[ReplicaStatus]:
        return ()

    def models(self) -> Sequence[ModelName]:
        return (READY, PARKED)

    async def nothing(self, *asked: object) -> NoReturn:
        raise NotImplementedError

    wake = park = lift = reload = devices = nothing

    def configuration(self) -> NoReturn:
        raise NotImplementedError

    def limits(self) -> Sequence[LimitState]:
        return ()

    def events(self) -> EventFeed:
        raise NotImplementedError


class History:
    """No past."""

    async def nothing(self, *asked: object) -> NoReturn:
        raise NotImplementedError

    ribbons = cost = costs = wakes = requests = explain = compare = log = copy = plan = nothing


def no_downloads(name: str) -> NoReturn:
    """Find none."""
    raise NotImplementedError


def over_tls(port: int, pem: str) -> Mapping[tuple[str, int], Reach]:
    """Return the engine as one elsewhere, whose certificate names `localhost`."""
    if not pem:
        return {}
    return {("localhost", port): Reach(url=EngineUrl("localhost", port, secure=True), tls=verifying(pem))}


async def main(port: int, engine_port: int, pem: str = "") -> None:
    clock = SystemClock.started()
    settings = GatewaySettings(
        listen=Address("127.0.0.1", port), admin=Address("127.0.0.1", 0), heartbeat_us=SECOND_US
    )
    fleet = Fleet()
    server = new_server(
        settings=settings,
        activator=StaticActivator("localhost" if pem else "127.0.0.1", engine_port, clock),
        suspect=lambda host, port, why: None,
        pool=UpstreamPool(timeout_us=settings.upstream_timeout_us, elsewhere=over_tls(engine_port, pem).get),
        keys=Keys(),
        ledger=CountingLedger(),
        fleet=fleet,
        clock=clock,
        log=Quiet(),
        metrics=GatewayMetrics(),
        engines=EngineFacts(dialects=DIALECTS, rows=lambda may_use: ()),
        directory=".",
        ollama=ollama_handler(view=fleet),
        admin=partial(
            admin_listeners,
            fleet=fleet,
            dashboard=FleetDashboard(
                fleet=fleet,
                history=History(),
                playground=Playground(where=lambda: ("127.0.0.1", port), credential=b"none"),
                pulls=Pulls(find=no_downloads, clock=clock),
                captures=Captures(settings=partial(FleetSettings, models=()), clock=clock),
                clock=clock,
                most_streams=1,
                hosts=(),
            ),
            settings=settings,
            keys=Keys(),
            bind=bound_socket,
            clock=clock,
            log=Quiet(),
        ),
    )
    async with server:
        gc.collect()
        gc.freeze()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))  # noqa: TID251
