"""Bytes sent to a held client to keep its connection open, by what that client can take.

Owns the choice of kind and the timer of one held request. Heartbeats never extend the wake budget: they
read the hold's notice and change nothing. What clients take was measured (docs/clients.md). 102 is the best
kind, because the real status can still follow, but `requests` and `urllib` take it for the final status and
Go before 1.24 gives up at the sixth. So only clients that were tried get it, and five times at most. Then,
and to all others, go comments in an event stream and white space before JSON.
"""

import asyncio
from enum import StrEnum

from poorwill.core.ports.activator import HeldRequest, WakeNotice
from poorwill.core.ports.clock import Clock
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import SECOND_US
from poorwill.gateway.downstream.exchange import Exchange
from poorwill.gateway.downstream.head_checks import Head
from poorwill.gateway.downstream.response import Headers, Sent

PREFER_INTERIM = b"interim"
"""A client may ask for 102s with `Prefer: interim` (RFC 7240), whatever its User-Agent."""
SDK_LANGUAGES = frozenset({b"python", b"js"})
"""Official SDKs, and what is built on them, that take 102. Go's do not, and Java's fails at the second."""
MOST_INTERIMS = 5
"""On one request, a 100 included. Go before 1.24, and Caddy when built with it, take five."""
_INTERIM_GAP_US = 45 * SECOND_US
"""The longest silence between two 102s: edges cut a connection after 60 s of it."""
_OFTEN = 100
_SELDOM_US = 15 * SECOND_US
"""After `_OFTEN` heartbeats the others come no more often than this: go-openai ends a stream at the 300th
line that is no event."""


class HeartbeatKind(StrEnum):
    """What a held client is sent."""

    INTERIM = "interim"
    COMMENTS = "comments"
    SPACES = "spaces"
    SILENCE = "silence"


def heartbeat_kind(head: Head, *, streaming: bool, json_answer: bool) -> HeartbeatKind:
    """Return what every client can take, of what may precede this answer.

    HTTP/1.0 knows no chunked coding, so its JSON is never committed early: a cut would look like an end. If
    nothing is known of what the path answers (speech, files), nothing may precede it.
    """
    if not json_answer:
        return HeartbeatKind.SILENCE
    if streaming:
        return HeartbeatKind.COMMENTS
    return HeartbeatKind.SPACES if head.http11 else HeartbeatKind.SILENCE


def interims_taken(head: Head, settings: GatewaySettings) -> int:
    """Return how many 102s this client takes.

    A proxy between may not pass them on, and may not take them for a sign of life, so its clients get none
    unless they ask.
    """
    if not head.http11:
        return 0
    asked = PREFER_INTERIM in {word.strip() for word in head.prefer.split(b",")}
    tried = settings.interim_agents and (
        head.sdk_language in SDK_LANGUAGES or head.agent.decode("latin-1").startswith(settings.interim_agents)
    )
    if not asked and (head.proxied or not tried):
        return 0
    return MOST_INTERIMS - head.expects_continue


def silence_us(head: Head, settings: GatewaySettings) -> int:
    """Return how long this client bears to hear nothing, if silence is what lets it see a late failure."""
    patient = head.agent.decode("latin-1").startswith(settings.patient_agents) and not head.proxied
    return max(settings.patience_us, settings.commit_after_us) if patient else settings.commit_after_us


class Heartbeat:
    """One held request's heartbeats, for as long as its `with` block runs, however that ends.

    Notes on the exchange which wake it waited for and how long.
    """

    __slots__ = (
        *("_beats", "_began_us", "_clock", "_commit_us", "_exchange", "_held", "_interims", "_kind"),
        *("_settings", "_timer"),
    )

    def __init__(
        self, *, exchange: Exchange, held: HeldRequest, settings: GatewaySettings, clock: Clock
    ) -> None:
        request = exchange.request
        self._kind = heartbeat_kind(
            request.head,
            streaming=exchange.streaming and not exchange.response.lines,
            json_answer=request.route.json_answer,
        )
        self._interims = interims_taken(request.head, settings)
        self._commit_us = silence_us(request.head, settings)
        self._exchange = exchange
        self._held = held
        self._settings = settings
        self._clock = clock
        self._began_us = clock.now_us()
        self._beats = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> HeldRequest:
        """Start; the first heartbeat is one interval from now."""
        self._exchange.held = self._held
        self._arm()
        return self._held

    def __exit__(self, *_: object) -> None:
        """Stop beating."""
        if self._timer is not None:
            self._timer.cancel()
        wake = self._held.wake
        waited_s = (self._clock.now_us() - self._began_us) / SECOND_US
        self._exchange.held, self._exchange.wake = None, wake
        self._exchange.response.wake_header = f"{wake or '-'}; held={waited_s:.3f}".encode()

    def _arm(self) -> None:
        delay_us = self._settings.heartbeat_us
        if self._beats < self._interims:
            delay_us = max(delay_us, min(delay_us << self._beats, _INTERIM_GAP_US))
        elif self._kind is HeartbeatKind.SILENCE:
            return
        elif self._beats >= _OFTEN:
            delay_us = max(delay_us, _SELDOM_US)
        elif self._kind is HeartbeatKind.SPACES and self._exchange.response.sent is Sent.NOTHING:
            left_us = self._commit_us - (self._clock.now_us() - self._began_us)
            delay_us = max(left_us, delay_us) if self._beats else left_us
        self._timer = asyncio.get_running_loop().call_later(delay_us / SECOND_US, self._beat)

    def _beat(self) -> None:
        if self._exchange.over:
            return  # its task is yet to hear of it; the next answer on this connection may have begun
        if self._exchange.writable:  # a client that reads nothing is not kept by more bytes
            self._send(self._held.notice())
        self._beats += 1
        self._arm()

    def _send(self, notice: WakeNotice) -> None:
        response = self._exchange.response
        if self._beats < self._interims:
            response.interim(interim_headers(notice))
            return
        if response.sent is Sent.NOTHING:
            if notice.wake is not None:
                response.wake_header = notice.wake.encode()
            if self._kind is HeartbeatKind.COMMENTS:
                response.commit_events()
            else:
                response.commit_spaces()
        response.filler(comment(notice) if self._kind is HeartbeatKind.COMMENTS else b" ")


def interim_headers(notice: WakeNotice) -> Headers:
    """Return the headers of a 102: the wake's phase, the seconds to readiness, and those to failure."""
    headers: Headers = [(b"x-poorwill-left", b"%d" % _whole_s(notice.left_us))]
    if notice.phase is not None:
        headers.append((b"x-poorwill-phase", notice.phase.encode()))
    if notice.ready_in_us is not None:
        headers.append((b"x-poorwill-ready-in", b"%d" % _whole_s(notice.ready_in_us)))
    if notice.wake is not None:
        headers.append((b"x-poorwill-wake", notice.wake.encode()))
    return headers


def comment(notice: WakeNotice) -> bytes:
    """Return one comment line of an event stream.

    No empty line follows: some readers take every empty line for the end of an event, and fail at one without
    data.
    """
    parts = [notice.phase.value if notice.phase else "queued"]
    parts.append(f"waited {notice.waited_us // SECOND_US} s")
    if notice.ready_in_us is not None:
        parts.append(f"ready in about {_whole_s(notice.ready_in_us)} s")
    parts.append(f"fails in {_whole_s(notice.left_us)} s")
    return f": poorwill waking: {', '.join(parts)}\n".encode()


def _whole_s(us: int) -> int:
    """Return whole seconds, rounded up: what is not over yet does not read 0."""
    return max(0, -(-us // SECOND_US))
