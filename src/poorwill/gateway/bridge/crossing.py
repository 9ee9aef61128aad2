"""The bridge: requests on their way to a hosted API while the replica they are for cannot serve them.

`Bridge` is one model's: it decides whether a request may cross, and counts. `Crossing` is one request's: it
stands between the exchange and the connection to the hosted API, hands bytes through as they come, and turns
back if the API refuses, so that the request is held for the wake after all. Turning back is possible until
the first byte of an answer was passed on, and happens once: a request crosses at most once.

Anything but a success turns back, even a 400: the replica may well serve what the hosted API does not know.
After a failure that the next request would meet as well, the bridge rests: for `REST_S`, or for as long as a
`Retry-After` says, `LONGEST_REST_S` at most; requests are held meanwhile.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from poorwill.core.entries import RequestEnded
from poorwill.core.errors import EngineFault, ErrorCode, PoorwillError
from poorwill.core.format import counted, money
from poorwill.core.ports.activator import Activator
from poorwill.core.ports.bridging import Bridged
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.token_prices import TokenCost
from poorwill.core.words import SECOND_US, ModelName
from poorwill.gateway.bridge.parts import BridgedApi, BridgeParts, BridgesTo, Dispatcher, Spawn
from poorwill.gateway.dialects import EngineFacts
from poorwill.gateway.downstream.exchange import OK, Exchange, Link, Lost
from poorwill.gateway.downstream.response import Headers
from poorwill.gateway.upstream.pool import UpstreamPool

REST_S = 10
LONGEST_REST_S = 300
FAILED_WAKES = frozenset({ErrorCode.WAKE_FAILED, ErrorCode.WAKE_TIMEOUT, ErrorCode.NO_CAPACITY})
"""How a hold ends that fails over to the bridge."""
_ABOUT_THE_REQUEST = frozenset({400, 413, 415, 422})
"""Refusals that say nothing about the next request."""


class Bridge:
    """One model's bridge: who may cross, and how many did since it was made."""

    def __init__(self, *, api: BridgedApi, parts: BridgeParts) -> None:
        self.api = api
        self.parts = parts
        self.under_way = 0
        self.requests = 0
        self.without_usage = 0
        self.failures = 0
        self.nusd = 0
        self._rests_until_us = 0

    async def cross(
        self, exchange: Exchange, dispatcher: Dispatcher, *, instead_of: PoorwillError | None
    ) -> bool:
        """Send a request to the hosted API; False if it may not or cannot go there.

        `instead_of` is what its wake failed with, None before any wake. Cancelled: nothing is left open.
        """
        wanted = self.api.at_once if instead_of is None else instead_of.code in FAILED_WAKES
        now = self.parts.clock.now_us()
        if not wanted or exchange.crossed or now < self._rests_until_us:
            return False
        head = exchange.request.head
        if not self.api.takes(head.method, head.path_text, head.prefer):
            return False
        if self.parts.by_key[exchange.request.key] >= self.parts.most_per_key:
            return False
        key, most_nusd = exchange.request.key, self.api.most_nusd(now, exchange.request.body)
        bridged = self.parts.bridging.bridge(
            exchange.model, asked_by=key or "anonymous", key=key, most_nusd=most_nusd
        )
        if bridged is None:
            return False
        exchange.crossed = True
        crossing = Crossing(
            bridge=self, exchange=exchange, dispatcher=dispatcher, bridged=bridged, instead_of=instead_of
        )
        return await crossing.begin()

    def failed(self, exchange: Exchange, why: str, *, rest_s: int) -> None:
        """Count and log a failed crossing, and close the bridge for a while."""
        self.failures += 1
        self._rests_until_us = max(self._rests_until_us, self.parts.clock.now_us() + rest_s * SECOND_US)
        self.parts.failed(self.api.serves, why.partition(":")[0])
        self.parts.log.warning(
            "the hosted API did not answer",
            model=self.api.serves,
            api=self.api.name,
            request=exchange.request_id,
            why=why,
            rests_s=rest_s,
        )

    def status(self) -> dict[str, object]:
        """Return how it stands, for `/status`."""
        left_us = max(self._rests_until_us - self.parts.clock.now_us(), 0)
        return {
            "model": self.api.serves,
            "api": self.api.name,
            "when": "waking" if self.api.at_once else "failed",
            "under_way": self.under_way,
            "requests": self.requests,
            "requests_without_usage": self.without_usage,
            "failures": self.failures,
            "nusd": self.nusd,
            "rests_s": -(-left_us // SECOND_US),
            "what": self._what(-(-left_us // SECOND_US)),
        }

    def _what(self, rests_s: int) -> str:
        """Say where requests go while the model cannot serve them, how many did and what they cost."""
        when = "while it wakes" if self.api.at_once else "when a wake fails"
        parts = [f"{self.under_way} under way"] if self.under_way else []
        parts.append(f"{counted(self.requests, 'request')} since serve began")
        parts.append(f"{money(self.nusd)} paid")
        if self.without_usage:
            parts.append(f"{self.without_usage} without usage, whose cost is not known")
        if self.failures:
            parts.append(f"{self.failures} not answered there")
        if rests_s:
            parts.append(f"not used for another {rests_s} s")
        return f"bridge to {self.api.name} {when}: {', '.join(parts)}"


def bridges_of(
    to: BridgesTo | None,
    *,
    pool: UpstreamPool,
    clock: Clock,
    log: Log,
    spawn: Spawn,
    failed: Callable[[ModelName, str], None],
    most_per_key: int,
) -> Mapping[ModelName, Bridge]:
    """Return the bridge of every model that has one."""
    if to is None:
        return {}
    parts = BridgeParts(
        bridging=to.bridging,
        pool=pool,
        clock=clock,
        log=log,
        spawn=spawn,
        failed=failed,
        most_per_key=most_per_key,
    )
    return {model: Bridge(api=api, parts=parts) for model, api in to.apis.items()}


class Crossing:
    """One request on the bridge: its exchange's surroundings and link, its connection's exchange."""

    def __init__(
        self,
        *,
        bridge: Bridge,
        exchange: Exchange,
        dispatcher: Dispatcher,
        bridged: Bridged,
        instead_of: PoorwillError | None,
    ) -> None:
        self._bridge = bridge
        self._exchange = exchange
        self._dispatcher = dispatcher
        self._bridged: Bridged | None = bridged
        self._wake = bridged.wake
        self._most_nusd = bridged.most_nusd
        self._instead_of = instead_of
        self._upstream: Link | None = None
        self._sent_us: int | None = None
        self._refused = ""
        self._abandoned = False

    async def begin(self) -> bool:
        """Connect and send; False if that is impossible. Cancelled: the exchange is over."""
        self._exchange.owner = self
        self._bridge.under_way += 1
        self._bridge.parts.by_key[self._exchange.request.key] += 1
        try:
            why = await self._send(fresh=False)
            if why:
                self._bridge.failed(self._exchange, why, rest_s=REST_S)
            return not why
        finally:
            if self._sent_us is None:
                self._leave()

    async def _send(self, *, fresh: bool) -> str:
        """Write the request on an idle or a new connection; return why it cannot be done, or nothing."""
        api, pool = self._bridge.api, self._bridge.parts.pool
        exchange = self._exchange
        upstream = None if fresh else pool.take(api.host, api.port)
        try:
            upstream = upstream or await pool.connect(api.host, api.port, tls=api.tls, hosted=True)
        except OSError as error:
            return f"no connection: {str(error) or 'it took too long'}"
        self._sent_us = self._sent_us or self.clock.now_us()
        head = exchange.request.head
        upstream.carry(self, api.request(head.path_text, head.forward, exchange.body_for(api.model)))
        return ""

    # -- ExchangeOwner of its exchange

    @property
    def clock(self) -> Clock:
        """poorwill's clock."""
        return self._dispatcher.clock

    @property
    def activator(self) -> Activator:
        """Where leases come from."""
        return self._dispatcher.activator

    @property
    def engines(self) -> EngineFacts:
        """What is known of engines and of the dialects of bodies."""
        return self._dispatcher.engines

    def tells_usage(self, exchange: Exchange) -> bool:
        """Return whether the hosted API tells the usage of a stream if asked for it."""
        return self._bridge.api.tells_usage

    def lost(self, exchange: Exchange, known: Lost, why: str) -> None:
        """Never called: it is `on_lost` that hears of this connection."""
        raise AssertionError("an exchange on the bridge has no connection of its own")

    def ended(self, exchange: Exchange, row: RequestEnded | None) -> None:
        """Put what the hosted API was paid into the row, and pass it on."""
        if row is not None and self._sent_us is not None:
            row = self._priced(row)
            self._leave(cost_nusd=row.bridge_nusd + row.bridge_unknown_nusd)
        self._leave()
        self._dispatcher.ended(exchange, row)

    # -- the Link of its exchange

    def abandon(self) -> None:
        """Close the connection at once: the API stops, and its answer is no longer wanted."""
        upstream, self._upstream = self._upstream, None
        self._abandoned = True
        if upstream is not None:
            upstream.abandon()

    def pause(self) -> None:
        """Read nothing more for now."""
        if self._upstream is not None:
            self._upstream.pause()

    def write(self, data: bytes) -> None:
        """Never called: no tunnel crosses."""
        raise AssertionError("a tunnel on the bridge")

    def resume(self) -> None:
        """Read on."""
        if self._upstream is not None:
            self._upstream.resume()

    # -- what its connection carries

    def attach(self, link: Link) -> None:
        """Wait for the answer on this connection."""
        self._upstream = link
        self._exchange.attach(self)

    def on_head(self, status: int, headers: Headers, *, length: int | None, content_type: bytes) -> None:
        """Pass a success on; turn back at anything else, once this read is over."""
        if self._bridged is None:
            return
        if 200 <= status < 300:
            kept = self._bridge.api.answer_headers(headers)
            self._exchange.on_head(status, kept, length=length, content_type=content_type)
            return
        rest_s = 0 if status in _ABOUT_THE_REQUEST else REST_S
        if rest_s and (asked_s := retry_after_s(headers)) is not None:
            rest_s = min(max(asked_s, 1), LONGEST_REST_S)
        self._refused = f"status {status}"
        asyncio.get_running_loop().call_soon(self._turn_back, self._refused, rest_s)

    def flush(self) -> None:
        """The head has arrived and the body has not."""
        if self._passes:
            self._exchange.flush()

    def on_body(self, parts: Sequence[bytes]) -> None:
        """Pass pieces of the body on as they came."""
        if self._passes:
            self._exchange.on_body(parts)

    def on_end(self) -> None:
        """The answer is complete; its connection is idle again."""
        self._upstream = None
        if self._passes:
            self._exchange.on_end()

    def on_lost(self, known: Lost, why: str) -> None:
        """Try again if a kept-alive connection was stale; otherwise turn back or cut the answer off."""
        self._upstream = None
        if not self._passes:
            return
        if self._exchange.first_byte_us is not None:
            self._break_off(ErrorCode.UPSTREAM_PROTOCOL, why)
        elif known is Lost.UNREAD:  # what it may have begun is paid for
            self._exchange.task = self._bridge.parts.spawn(self._send_anew())
        else:
            self._turn_back(f"connection lost: {why}", REST_S)

    def fail(self, error: PoorwillError) -> None:
        """End the request or turn back: the connection is silent, broken or being cut."""
        if not self._passes:
            return
        if error.code is ErrorCode.DRAINING:
            self._exchange.fail(error)
        elif self._exchange.first_byte_us is not None:
            self._break_off(error.code, _WHY.get(error.code, "failed"))
        else:
            self._turn_back(_WHY.get(error.code, "failed"), REST_S)

    # --

    @property
    def _passes(self) -> bool:
        return self._bridged is not None and not self._refused and not self._abandoned

    async def _send_anew(self) -> None:
        why = await self._send(fresh=True)
        self._exchange.task = None
        if why:
            self._turn_back(why, REST_S)

    def _turn_back(self, why: str, rest_s: int) -> None:
        """Hold the request after all; or fail it with what its wake failed with."""
        if self._bridged is None:
            return  # its client left meanwhile
        exchange, self._sent_us = self._exchange, None
        exchange.link = None
        self.abandon()
        self._leave()
        exchange.owner = self._dispatcher
        self._bridge.failed(exchange, why, rest_s=rest_s)
        if self._instead_of is not None:
            exchange.fail(self._instead_of)
        else:
            self._dispatcher.resume(exchange)

    def _break_off(self, code: ErrorCode, why: str) -> None:
        """Fail a request whose answer has begun: nothing can be taken back."""
        self._bridge.failed(self._exchange, f"answer broken off: {why}", rest_s=REST_S)
        name = self._bridge.api.name
        self._exchange.fail(EngineFault(code, f"the hosted API {name} broke off its answer: {why}"))

    def _leave(self, *, cost_nusd: int = 0) -> None:
        """Hand the right to cross back, once, and say what the API charged."""
        bridged, self._bridged = self._bridged, None
        if bridged is not None:
            self._bridge.under_way -= 1
            self._bridge.parts.by_key[self._exchange.request.key] -= 1
            self._bridge.parts.bridging.bridge_over(bridged, cost_nusd=cost_nusd)
            if self._sent_us is None:
                self._exchange.owner = self._dispatcher

    def _priced(self, row: RequestEnded) -> RequestEnded:
        """Return the row with what the API charged, or with the most that it may have."""
        bridge, api = self._bridge, self._bridge.api
        row = replace(row, bridge=api.name, leased_us=self._sent_us, wake=self._wake or row.wake)
        bridge.requests += 1
        cost = TokenCost(nusd=0)
        if row.tokens_in is not None:
            prices = api.prices(row.arrived_us, row.tokens_in)
            cost = prices.cost(row.tokens_in, row.tokens_out or 0, row.parts)
        if (
            row.outcome != OK or row.counted or row.tokens_in is None
        ):  # what the API reported is no final count
            cost = replace(cost, unknown_nusd=max(self._most_nusd - cost.nusd, 0))
        row = replace(row, bridge_nusd=cost.nusd, bridge_unknown_nusd=cost.unknown_nusd)
        bridge.nusd += cost.nusd
        bridge.without_usage += row.bridge_untold
        return row


def retry_after_s(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Return the seconds that an answer asks to wait, None unless it says so in whole seconds."""
    for name, value in headers:
        if name.lower() == b"retry-after" and re.fullmatch(rb"[0-9]{1,9}", value.strip()):
            return int(value)
    return None


_WHY: Mapping[ErrorCode, str] = MappingProxyType(
    {
        ErrorCode.UPSTREAM_TIMEOUT: "silent for too long",
        ErrorCode.UPSTREAM_PROTOCOL: "its answer is not HTTP",
    }
)
