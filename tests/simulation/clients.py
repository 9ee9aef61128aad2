"""Clients with every habit: patient, leaving, retrying, in bursts, reading slowly, streaming or not.

Every request ends exactly once: answered whole, refused with a typed error, left by its client, cut, or ended
by the death of poorwill itself.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field

from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.words import ModelName
from poorwill.fleet.fleet import Fleet
from poorwill.gateway.downstream.exchange import OK, Exchange
from poorwill.gateway.downstream.head_checks import Head
from poorwill.gateway.downstream.incoming import Incoming
from poorwill.gateway.downstream.request_memory import RequestMemory
from poorwill.gateway.downstream.response import Ending, Response
from poorwill.gateway.routes import ROUTES

from .gateway import PART, WatchedPolicy
from .history import Event
from .laws import Broken
from .loop import VirtualClock

LONGEST_RETRY_S = 60
READS_AGAIN_S = 3.0
"""After so long a slow reader takes more."""
_ROUTE = ROUTES[0]
_HEADS = {
    agent: Head(
        method=b"POST",
        target=_ROUTE.path.encode(),
        path=_ROUTE.path.encode(),
        path_text=_ROUTE.path,
        http11=True,
        agent=agent,
    )
    for agent in (b"OpenAI/Python", b"curl")
}
_RETRY_AFTER = re.compile(rb"\r\nretry-after: (\d+)\r\n")


@dataclass(eq=False)
class Request:
    """One request on its way, and how it ended."""

    exchange: Exchange | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    got: bytearray = field(default_factory=bytearray)
    outcomes: list[str] = field(default_factory=list)

    def judge(self, finished: Exchange) -> None:
        """Laws at the very end: one end, a whole answer where it says so, nothing held on to."""
        if len(self.outcomes) != 1:
            raise Broken(f"a request ended {len(self.outcomes)} times: {self.outcomes}")
        if finished.lease is not None or finished.link is not None:
            raise Broken(f"a request that ended ({self.outcomes[0]}) holds {finished.lease or finished.link}")
        response = finished.response
        if self.outcomes[0] == OK and self.got.count(PART) != 3:
            raise Broken(f"an answer said to be whole has {self.got.count(PART)} of 3 parts")
        if self.outcomes[0] not in (OK, ErrorCode.CLIENT_GONE) and response.status < 400:
            told = b'"error"' in self.got or response.ending is Ending.CUT
            if not told:
                raise Broken(f"a request failed ({self.outcomes[0]}) and its client cannot know")
        self.ended.set()


@dataclass
class Clients:
    """Everybody who asks."""

    asked: int = 0
    tries: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    served_us: dict[str, int] = field(default_factory=dict)
    """How long an engine works on each request."""
    _open: dict[asyncio.Task[None], None] = field(default_factory=dict)
    _requests: dict[Exchange, Request] = field(default_factory=dict)

    async def ask(
        self, event: Event, model: ModelName, fleet: Fleet, policy: WatchedPolicy, clock: VirtualClock
    ) -> None:
        """Send one request, again where the client would, and wait for its end."""
        task = asyncio.current_task()
        assert task is not None
        self.asked += 1
        self._open[task] = None
        outcome = "cut"
        try:
            if event.bridged and await _bridged(event, model, fleet):
                outcome = "bridged"
            else:
                outcome = await self._asked(event, model, policy, clock)
        except asyncio.CancelledError:
            task.uncancel()
        finally:
            self._open.pop(task, None)
            self.ended[outcome] += 1

    async def _asked(self, event: Event, model: ModelName, policy: WatchedPolicy, clock: VirtualClock) -> str:
        leaves_us = None if event.leaves_us is None else clock.awake_us() + event.leaves_us
        for left in range(event.retries, -1, -1):
            request = Request()
            exchange = self._begin(request, event, model, policy, clock)
            patience_s = None if leaves_us is None else max(leaves_us - clock.awake_us(), 0) / 1e6
            try:
                async with asyncio.timeout(patience_s):
                    await request.ended.wait()
            except TimeoutError:
                exchange.gone()
            finally:
                exchange.gone()  # when poorwill's clients are cut off
                self._requests.pop(exchange, None)
                self.served_us.pop(exchange.request_id, None)
            outcome = request.outcomes[0]
            again = _RETRY_AFTER.search(bytes(request.got))
            if outcome in (OK, ErrorCode.CLIENT_GONE) or left == 0 or again is None:
                return outcome
            await asyncio.sleep(min(int(again[1]), LONGEST_RETRY_S))
        raise AssertionError("unreachable")

    def _begin(
        self, request: Request, event: Event, model: ModelName, policy: WatchedPolicy, clock: VirtualClock
    ) -> Exchange:
        self.tries += 1
        name = f"r{self.tries}"
        self.served_us[name] = event.lasts_us
        head = _HEADS[b"OpenAI/Python" if event.number % 2 else b"curl"]
        response = Response(
            write=lambda data: self._written(request, event, data),
            request_id=name.encode(),
            http11=True,
            bodyless=False,
            dialect=_ROUTE.dialect,
            ending=Ending.KEEP,
        )
        exchange = request.exchange = Exchange(
            owner=policy,
            request=Incoming(
                head=head,
                route=_ROUTE,
                key=event.key,
                body=b"{}",
                keep_alive=True,
                arrived_us=clock.now_us(),
                memory=RequestMemory(limit_bytes=1 << 30),
            ),
            request_id=name,
            response=response,
            writable=True,
            finished=request.judge,
            model=model,
            streaming=event.streams,
        )
        self._requests[exchange] = request
        policy.begin(exchange)
        return exchange

    def _written(self, request: Request, event: Event, data: bytes) -> None:
        request.got += data
        exchange = request.exchange
        if exchange is not None and exchange.over:
            raise Broken(f"{exchange.request_id} is written to after its end")
        if event.slow and exchange is not None and exchange.writable:
            exchange.congested()
            asyncio.get_running_loop().call_later(READS_AGAIN_S, exchange.relieved)

    def told(self, exchange: Exchange, outcome: str) -> None:
        """Take note of the end that the policy wrote down."""
        request = self._requests.get(exchange)
        if request is None:
            raise Broken(f"{exchange.request_id} ended again: {outcome}")
        request.outcomes.append(outcome)

    def work_us(self, exchange: Exchange) -> int:
        """Return how long an engine works on a request."""
        return self.served_us[exchange.request_id]

    async def operate(self, asked: Coroutine[object, object, object]) -> None:
        """Do what an operator asked for; a refusal is an answer."""
        try:
            async with asyncio.timeout(3600):
                await asked
        except (PoorwillError, TimeoutError):
            return

    def hang_up(self) -> None:
        """Every client leaves: the gateway has been closed before the fleet."""
        for task in list(self._open):
            task.cancel()

    def killed(self) -> "Clients":
        """poorwill is dead: what was open has ended with its connection. Return who goes on."""
        ended = self.ended + Counter(killed=len(self._open))
        return Clients(asked=self.asked, tries=self.tries, ended=ended)

    def check_all_ended(self) -> None:
        """Law: every request has ended, exactly once."""
        if self._open or self._requests:
            raise Broken(f"{len(self._open)} requests never ended")
        if sum(self.ended.values()) != self.asked:
            raise Broken(f"{self.asked} requests, {sum(self.ended.values())} ends: {self.ended}")


async def _bridged(event: Event, model: ModelName, fleet: Fleet) -> bool:
    """Have a hosted API serve a request, if the fleet sends it there."""
    bridged = fleet.bridging.bridge(model, asked_by=event.key, key=event.key, most_nusd=0)
    if bridged is None:
        return False
    try:
        await asyncio.sleep(event.lasts_us / 1e6)
    finally:
        fleet.bridging.bridge_over(bridged, cost_nusd=0)
    return True
