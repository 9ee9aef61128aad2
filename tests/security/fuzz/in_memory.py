"""A gateway between a client and an engine in memory: no sockets, and each read is ours to choose."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from tests.gateway.site import M1, QUICK, ToyActivator, ToyKeys, ToyLedger
from tests.gateway.toy_upstream import ToyUpstream
from tests.kept_log import KeptLog

from poorwill.compose.clock import SystemClock
from poorwill.compose.dialects.bodies import DIALECTS
from poorwill.gateway.dialects import EngineFacts
from poorwill.gateway.downstream.connection import Downstream, ListenerContext
from poorwill.gateway.downstream.incoming import new_checks
from poorwill.gateway.inference import inference_handlers
from poorwill.gateway.request_policy import RequestPolicy
from poorwill.gateway.upstream.pool import UpstreamPool
from poorwill.policies.requests.key_limits import KeyLimiter

ENGINE = "engine"


class End(asyncio.Transport):
    """One end of a connection: remembers what is written, and tells when it is closed."""

    def __init__(
        self, protocol: asyncio.Protocol, *, wrote: Callable[[], object], closed: Callable[[], object]
    ):
        super().__init__()
        self.protocol, self.written = protocol, bytearray()
        self._wrote, self._closed, self._closing = wrote, closed, False
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing
        self.written += data
        self._wrote()

    def write_eof(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._lost)

    abort = close

    def _lost(self) -> None:
        self.protocol.connection_lost(None)
        self._closed()

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@dataclass
class Engine:
    """Answers each request on each connection with the same reads, then hangs up."""

    reads: Sequence[bytes] = ()

    async def connect(self, new: Callable[[], asyncio.BaseProtocol], port: int) -> None:
        protocol, soon = new(), asyncio.get_running_loop().call_soon
        assert isinstance(protocol, asyncio.Protocol)
        end = End(protocol, wrote=lambda: soon(self._answer, end), closed=lambda: None)

    def _answer(self, end: End) -> None:
        for read in self.reads:
            if not end.is_closing():
                end.protocol.data_received(read)
        if not end.is_closing():
            end.protocol.eof_received()
            end.close()


@dataclass
class Gateway:
    """Takes a client's bytes and returns the answer's, once the connection is closed."""

    log: KeptLog = field(default_factory=KeptLog)
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        clock, keys, connections = SystemClock.started(), ToyKeys(), set[Downstream]()
        pool = UpstreamPool(timeout_us=QUICK.upstream_timeout_us, hosts={ENGINE: self.engine})
        there = ToyUpstream(script=_nobody, host=ENGINE, port=1)
        self.activator = ToyActivator(clock=clock, ready={M1: there})
        self.ledger = ToyLedger()
        policy = RequestPolicy(
            settings=QUICK,
            activator=self.activator,
            pool=pool,
            ledger=self.ledger,
            clock=clock,
            log=self.log,
            models=lambda: [M1],
            observe=lambda row: None,
            spawn=lambda work: asyncio.get_running_loop().create_task(work),
            bridges={},
            engines=EngineFacts(dialects=DIALECTS, rows=lambda may_use: []),
            limiter=KeyLimiter(keys=keys, clock=clock, at_once=0),
        )
        numbers = count()
        self.context = ListenerContext(
            checks=new_checks(settings=QUICK, keys=keys, clock=clock, log=self.log, directory="/nowhere"),
            policy=policy,
            handlers=inference_handlers(
                policy=policy, models=lambda: [M1], spawn=policy.spawn, ollama=lambda policy: _no_ollama
            ),
            new_request_id=lambda: f"req-{next(numbers)}",
            refused=lambda code: None,
            spawn=policy.spawn,
            connections=connections,
            left=lambda peer: None,
        )

    async def ask(self, request: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        closed = loop.create_future()
        client = Downstream(context=self.context, loop=loop, peer="")
        end = End(client, wrote=lambda: None, closed=lambda: closed.set_result(None))
        client.data_received(request)
        await closed
        return bytes(end.written)


async def _nobody(*given: object) -> None:
    raise AssertionError("nobody listens there")


def _no_ollama(exchange: object) -> None:
    raise AssertionError("nobody asks like that")
