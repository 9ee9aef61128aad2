"""Bytes sent to a held client to keep its connection open, by what that client can take.

Owns the choice of kind and the timer of one held request. Heartbeats never extend the wake budget: they
read the hold's notice and change nothing. What was measured of real clients is in the design's reference
on client behaviour; in short: the official clients take 102, `requests` and `urllib` take it for the
final status, and every client takes comments in an event stream and white space before JSON.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum

from poorwill.core.ports import HeldRequest, WakeNotice
from poorwill.core.settings import GatewaySettings
from poorwill.gateway.edge import Head
from poorwill.gateway.response import Headers, Response, Sent

PREFER_INTERIM = b"interim"
"""A client may ask for 102s with `Prefer: interim` (RFC 7240), whatever its User-Agent."""


class Beat(StrEnum):
    """What a held client is sent."""

    INTERIM = "interim"
    COMMENTS = "comments"
    SPACES = "spaces"
    SILENCE = "silence"


def beat_for(head: Head, *, streaming: bool, json_answer: bool, settings: GatewaySettings) -> Beat:
    """Return what this client can take.

    HTTP/1.0 knows no interim responses and no chunked coding, so its JSON is never committed early: a
    cut could not be told from an end. An answer that is not JSON cannot begin with white space.
    """
    if head.http11 and _takes_interim(head, settings):
        return Beat.INTERIM
    if streaming:
        return Beat.COMMENTS
    if json_answer and head.http11:
        return Beat.SPACES
    return Beat.SILENCE


def _takes_interim(head: Head, settings: GatewaySettings) -> bool:
    if head.prefer:
        preferences = {word.strip() for word in head.prefer.split(b",")}
        if PREFER_INTERIM in preferences:
            return True
    agent = head.agent.decode("latin-1")
    return agent.startswith(settings.interim_agents)


class Heartbeat:
    """The timer of one held request: `start` once, `stop` when the hold ends, however it ends."""

    __slots__ = (
        "_commit_after_s",
        "_congested",
        "_every_s",
        "_held",
        "_kind",
        "_response",
        "_timer",
    )

    def __init__(
        self,
        *,
        kind: Beat,
        response: Response,
        held: HeldRequest,
        settings: GatewaySettings,
        congested: Callable[[], bool],
    ) -> None:
        self._kind = kind
        self._response = response
        self._held = held
        self._every_s = settings.heartbeat_us / 1e6
        self._commit_after_s = settings.commit_after_us / 1e6
        self._congested = congested
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat; the first beat comes one interval from now."""
        if self._kind is Beat.SILENCE:
            return
        first_s = self._commit_after_s if self._kind is Beat.SPACES else self._every_s
        self._timer = asyncio.get_running_loop().call_later(first_s, self._beat)

    def stop(self) -> None:
        """Send nothing any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._beat)
        if self._congested():
            return  # the client reads nothing: more bytes keep no connection open
        notice = self._held.notice()
        if self._kind is Beat.INTERIM:
            self._response.interim(interim_headers(notice))
            return
        if self._response.sent is Sent.NOTHING:
            if notice.wake is not None:
                self._response.wake_header = notice.wake.encode()
            if self._kind is Beat.COMMENTS:
                self._response.commit_events()
            else:
                self._response.commit_spaces()
        self._response.filler(comment(notice) if self._kind is Beat.COMMENTS else b" ")


def interim_headers(notice: WakeNotice) -> Headers:
    """Return the headers of a 102: what the wake is doing and how long it may still take."""
    headers: Headers = [(b"x-poorwill-left", b"%d" % max(0, notice.left_us // 1_000_000))]
    if notice.phase is not None:
        headers.append((b"x-poorwill-phase", notice.phase.encode()))
    if notice.expected_us is not None:
        headers.append((b"x-poorwill-expected", b"%d" % max(0, notice.expected_us // 1_000_000)))
    if notice.wake is not None:
        headers.append((b"x-poorwill-wake", notice.wake.encode()))
    return headers


def comment(notice: WakeNotice) -> bytes:
    """Return one comment line of an event stream, with the empty line that every reader skips."""
    phase = notice.phase.value if notice.phase else "queued"
    waited_s, left_s = notice.waited_us // 1_000_000, max(0, notice.left_us // 1_000_000)
    return f": poorwill waking: {phase}, waited {waited_s} s, {left_s} s left\n\n".encode()
