"""Bytes sent to a held client to keep its connection open, by what that client can take.

Owns the choice of kind and the timer of one held request. Heartbeats never extend the wake budget: they
read the hold's notice and change nothing. What was measured of real clients is in the design's reference
on client behaviour; in short: the official clients take 102, `requests` and `urllib` take it for the
final status, and every client takes comments in an event stream and white space before JSON.
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


class HeartbeatKind(StrEnum):
    """What a held client is sent."""

    INTERIM = "interim"
    COMMENTS = "comments"
    SPACES = "spaces"
    SILENCE = "silence"


def heartbeat_kind(
    head: Head, *, streaming: bool, json_answer: bool, settings: GatewaySettings
) -> HeartbeatKind:
    """Return what this client can take.

    HTTP/1.0 knows no interim responses and no chunked coding, so its JSON is never committed early: a
    cut could not be told from an end. Where nothing is known of what the path answers (speech, files),
    nothing may precede it.
    """
    if head.http11 and _takes_interim(head, settings):
        return HeartbeatKind.INTERIM
    if not json_answer:
        return HeartbeatKind.SILENCE
    if streaming:
        return HeartbeatKind.COMMENTS
    return HeartbeatKind.SPACES if head.http11 else HeartbeatKind.SILENCE


def _takes_interim(head: Head, settings: GatewaySettings) -> bool:
    if head.prefer:
        preferences = {word.strip() for word in head.prefer.split(b",")}
        if PREFER_INTERIM in preferences:
            return True
    agent = head.agent.decode("latin-1")
    return agent.startswith(settings.interim_agents)


class Heartbeat:
    """One held request's heartbeats, for as long as its `with` block runs, however that ends.

    Notes on the exchange which wake it waited for and how long.
    """

    __slots__ = ("_began_us", "_clock", "_exchange", "_held", "_kind", "_settings", "_timer")

    def __init__(
        self, *, exchange: Exchange, held: HeldRequest, settings: GatewaySettings, clock: Clock
    ) -> None:
        request = exchange.request
        self._kind = heartbeat_kind(
            request.head,
            streaming=exchange.streaming,
            json_answer=request.route.json_answer,
            settings=settings,
        )
        self._exchange = exchange
        self._held = held
        self._settings = settings
        self._clock = clock
        self._began_us = clock.now_us()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> HeldRequest:
        """Start; the first heartbeat is one interval from now."""
        self._exchange.held = self._held
        if self._kind is not HeartbeatKind.SILENCE:
            spaces = self._kind is HeartbeatKind.SPACES
            self._arm(self._settings.commit_after_us if spaces else self._settings.heartbeat_us)
        return self._held

    def __exit__(self, *_: object) -> None:
        """Stop beating."""
        if self._timer is not None:
            self._timer.cancel()
        wake = self._held.wake
        waited_s = (self._clock.now_us() - self._began_us) / SECOND_US
        self._exchange.held, self._exchange.wake = None, wake
        self._exchange.response.wake_header = f"{wake or '-'}; held={waited_s:.3f}".encode()

    def _arm(self, delay_us: int) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_us / SECOND_US, self._beat)

    def _beat(self) -> None:
        self._arm(self._settings.heartbeat_us)
        if not self._exchange.writable:
            return  # the client reads nothing: more bytes keep no connection open
        response, notice = self._exchange.response, self._held.notice()
        if self._kind is HeartbeatKind.INTERIM:
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
    """Return the headers of a 102: the wake's phase, the seconds until the replica should be ready,
    and the seconds until the request fails."""
    headers: Headers = [(b"x-poorwill-left", b"%d" % _whole_s(notice.left_us))]
    if notice.phase is not None:
        headers.append((b"x-poorwill-phase", notice.phase.encode()))
    if notice.ready_in_us is not None:
        headers.append((b"x-poorwill-ready-in", b"%d" % _whole_s(notice.ready_in_us)))
    if notice.wake is not None:
        headers.append((b"x-poorwill-wake", notice.wake.encode()))
    return headers


def comment(notice: WakeNotice) -> bytes:
    """Return one comment line of an event stream, with the empty line that every reader skips."""
    parts = [notice.phase.value if notice.phase else "queued"]
    parts.append(f"waited {notice.waited_us // SECOND_US} s")
    if notice.ready_in_us is not None:
        parts.append(f"ready in about {_whole_s(notice.ready_in_us)} s")
    parts.append(f"fails in {_whole_s(notice.left_us)} s")
    return f": poorwill waking: {', '.join(parts)}\n\n".encode()


def _whole_s(us: int) -> int:
    """Return whole seconds, rounded up: what is not over yet does not read 0."""
    return max(0, -(-us // SECOND_US))
