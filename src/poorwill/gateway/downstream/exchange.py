"""One request from its arrival to its last byte: what it holds, and its single end.

Owns the request's lease, its upstream connection, its task and its ledger row, and hands each back
exactly once however the request ends. Decides nothing about holding or retrying (`request_policy` does)
and parses nothing (`downstream` and `upstream` do).
"""

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol
from urllib.parse import parse_qsl, urlencode

import msgspec

from poorwill.core.entries import RequestEnded
from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.ports.activator import Activator, HeldRequest, Lease
from poorwill.core.ports.answers import UNKNOWN, AnswerReader
from poorwill.core.ports.clock import Clock
from poorwill.core.words import ModelName, ReplicaId, WakeId
from poorwill.gateway import wire
from poorwill.gateway.dialects import EngineFacts
from poorwill.gateway.downstream.head_checks import refusal
from poorwill.gateway.downstream.incoming import Incoming
from poorwill.gateway.downstream.response import Ending, Headers, Response, Sent
from poorwill.policies.requests.affinity import conversation

_ENGINE_ERROR_MAX = 64 * 1024
_EARLY_MAX = 64 * 1024
MOST_RETRY_AFTER_S = 120
"""The official SDKs ignore a `Retry-After` beyond a minute or two; others obey whatever it says."""
OK = "ok"


class Link(Protocol):
    """An upstream connection that carries an exchange."""

    def abandon(self) -> None:
        """Close the connection at once: its answer is no longer wanted."""

    def pause(self) -> None:
        """Read nothing more for now: the client is slower than the engine."""

    def resume(self) -> None:
        """Read on."""

    def write(self, data: bytes) -> None:
        """Send bytes as they are, through a tunnel."""


class Lost(Enum):
    """What is known of a request whose connection ended before any byte of an answer."""

    UNREAD = auto()
    """The engine cannot have begun it."""
    STALE = auto()
    """A connection that had been used before ended as it arrived. The engine has given the request up, has
    never seen it, or was killed by it; it then accepts no connection."""
    BEGUN = auto()
    """The engine may have worked on it."""


class ExchangeOwner(Protocol):
    """What an exchange needs from its owner; one object owns all exchanges of a gateway."""

    @property
    def clock(self) -> Clock:
        """poorwill's clock."""

    @property
    def activator(self) -> Activator:
        """Where leases come from and go back to."""

    @property
    def engines(self) -> EngineFacts:
        """What is known of engines and of the dialects of bodies."""

    def tells_usage(self, exchange: "Exchange") -> bool:
        """Return whether who answers tells the usage of a stream if asked for it."""

    def lost(self, exchange: "Exchange", known: Lost, why: str) -> None:
        """Decide about a request whose connection was lost before the first byte."""

    def ended(self, exchange: "Exchange", row: RequestEnded | None) -> None:
        """Take note that an exchange is over; with its `row` if it was about a model."""


class Exchange(msgspec.Struct, kw_only=True, eq=False):
    """One request and its response. Methods run on the event loop's thread and never block.

    A Struct, because it is made for every request: that costs a third of what a plain class costs.
    """

    owner: ExchangeOwner
    request: Incoming
    request_id: str
    response: Response
    writable: bool
    """Whether the client takes more bytes."""
    finished: Callable[["Exchange"], None]
    """Called once, at the very end."""

    model: ModelName = ModelName("")
    streaming: bool = False
    engine_name: str = ""
    """What the body must call the model; empty: as it does."""
    adapter: bool = False
    """Whether that is an adapter, which is called so everywhere."""
    conversation: int = 0
    """What tells it from others; 0 if that is not asked for, or it is none."""
    lease: Lease | None = None
    replica: ReplicaId | None = None
    leased_us: int | None = None
    first_byte_us: int | None = None
    held: HeldRequest | None = None
    wake: WakeId | None = None
    link: Link | None = None
    task: "asyncio.Task[None] | None" = None
    tunnels: bool = False
    """Whether it becomes a tunnel: bytes both ways, for as long as both ends stay."""
    open: bool = False
    """Whether the tunnel is there."""
    read_client: Callable[..., None] | None = None
    """Lets a client whose tunnel is full wait: called with `reading`."""
    tries: int = 0
    failing_us: int = 0
    """Since when no connection to an engine could be made; 0: the last one could."""
    swallowed: bool = False
    """A stale connection took it along: only the engine that closed it may get it again."""
    rationed: bool = False
    """Whether it counts against the limits of its key."""
    request_bytes: int = 0
    crossed: bool = False
    """Whether the bridge was tried: it is tried once."""
    over: bool = False
    reader: AnswerReader | None = None
    translates: Callable[[int, bytes], AnswerReader] | None = None
    """Makes what turns an answer, by its status and content type, into one of the API that was asked."""
    hides_usage: bool = False
    """Whether usage was asked for on the gateway's behalf: that chunk is not for the client."""
    whole: bool = False
    """Whether the answer came to its end."""
    engine_status: int = 0
    engine_error: bytearray | None = None
    """What the engine answered instead of what the client was promised."""

    def __repr__(self) -> str:
        stage = "over" if self.over else "relaying" if self.link else "waiting"
        return f"<Exchange {self.request_id} {self.model or '-'} {stage}>"

    # -- what the policy does

    def last_served_by(self) -> ReplicaId | None:
        """Return who served the conversation last, as far as is known."""
        self.conversation = conversation(self.model, self.request.body)
        return self.owner.engines.conversations.last(self.conversation)

    def leased(self, lease: Lease, *, at_us: int) -> None:
        """Take a lease; from now on it is this exchange's to give back."""
        self.lease = lease
        if self.conversation:
            self.owner.engines.conversations.served(self.conversation, lease.replica)
        if lease.engine_model and not self.adapter:
            self.engine_name = lease.engine_model
        self.replica = lease.replica
        self.leased_us = at_us

    def release(self) -> None:
        """Give the lease back, if there is one."""
        lease, self.lease = self.lease, None
        if lease is not None:
            self.owner.activator.give_back(lease)

    def body_for(self, name: str) -> bytes:
        """Return the body as it is to be sent: with the name that the model has there, if it has another, and
        asking for a stream's usage, if the client does not."""
        self.hides_usage = False
        dialects = self.owner.engines.dialects
        body = dialects.renamed(self.request.body, name) if name else self.request.body
        if not (self.streaming and self.request.route.takes_stream_options and self.owner.tells_usage(self)):
            return body
        asking = dialects.asking_usage(body)
        self.hides_usage = asking is not body
        return asking

    def target_for(self, name: str) -> bytes:
        """Return what the engine is asked for; in a tunnel's query the model has the name it has there."""
        target = self.request.head.target
        if not (self.tunnels and name):
            return target
        path, _, query = target.partition(b"?")
        fields = [
            (key, name if key == "model" else value) for key, value in parse_qsl(query.decode("latin-1"))
        ]
        return b"%b?%b" % (path, urlencode(fields).encode())

    def attach(self, link: Link) -> None:
        """Wait for the answer on this connection, to which the request has just been written."""
        self.link = link
        if not self.writable:
            link.pause()

    def fail(self, error: PoorwillError) -> None:
        """End the request with an error, reported in whichever way is still open."""
        if self.over:
            return
        retry_after_s = error.retry_after_s
        if retry_after_s is None and self.model and wire.may_retry(error.code):
            retry_after_s = self.owner.activator.retry_after_s(self.model)
        if retry_after_s is not None:
            retry_after_s = max(1, min(retry_after_s, MOST_RETRY_AFTER_S))
        self._let_go()
        self.response.fail(error, retry_after_s=retry_after_s)
        self._end(error.code.value)

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """End the request with a response of the gateway's own."""
        self.response.whole(status, headers, body)
        self._end(OK)

    # -- what the client does

    def gone(self) -> None:
        """End the request because its client left: not an error, and there is no one to report it to."""
        if self.over:
            return
        self._let_go()
        if self.open:
            self._end(OK)
            return
        self.response.status = wire.http_status(ErrorCode.CLIENT_GONE)
        self._end(ErrorCode.CLIENT_GONE.value)

    def congested(self) -> None:
        """The client reads too slowly: let the engine wait."""
        self.writable = False
        if self.link is not None:
            self.link.pause()

    def relieved(self) -> None:
        """The client reads again."""
        self.writable = True
        if self.link is not None:
            self.link.resume()

    def from_client(self, data: bytes) -> None:
        """Pass on what a client sent into its tunnel; what it sends before there is one waits."""
        if self.open and self.link is not None:
            self.link.write(data)
        elif len(self.request.body) + len(data) > _EARLY_MAX:
            self.fail(refusal("too much was sent before the tunnel was open"))
        else:
            self.request.body += data

    # -- what the engine does

    def on_switch(self, headers: Headers) -> None:
        """Open the tunnel: the engine has agreed to it."""
        self.first_byte_us = self.owner.clock.now_us()
        self.open = True
        self.response.switch(headers)
        early, self.request.body = self.request.body, b""
        if early:
            self.from_client(early)

    def congested_engine(self, *, congested: bool) -> None:
        """Let the client wait while the engine reads too slowly."""
        if self.read_client is not None:
            self.read_client(reading=not congested)

    def on_head(self, status: int, headers: Headers, *, length: int | None, content_type: bytes) -> None:
        """Relay the engine's head, or reconcile it with what the client was promised already."""
        self.first_byte_us = self.owner.clock.now_us()
        if self.request.spool is None:  # else some of it may still be on its way
            self.request.drop_body()
        self.reader = self.owner.engines.dialects.new_reader(content_type, hides=self.hides_usage)
        response = self.response
        if self.translates is not None:
            self.reader = self.translates(status, content_type)
            lines = response.lines and status == 200
            kind = b"application/x-ndjson" if lines else b"application/json"
            headers, length, content_type = [(b"content-type", kind)], None, kind
        events = content_type.startswith(b"text/event-stream")
        if events and self.hides_usage:
            length = None
        if response.sent is Sent.NOTHING:
            response.relay_head(status, headers, length=length, events=events)
            return
        promised = events if response.sent is Sent.EVENTS else b"json" in content_type
        if status != 200 or not promised or any(n.lower() == b"content-encoding" for n, _ in headers):
            self.engine_status = status
            self.engine_error = bytearray()

    def flush(self) -> None:
        """The engine has sent its head and keeps us waiting for the body."""
        self.response.flush()

    def on_body(self, parts: Sequence[bytes]) -> None:
        """Relay pieces of the engine's body; at least one, none of them empty."""
        if self.engine_error is not None:
            for part in parts:
                self.engine_error += part[: _ENGINE_ERROR_MAX - len(self.engine_error)]
            return
        if self.reader is not None:
            parts = [part for part in map(self.reader.feed, parts) if part]
        if parts:
            self.response.body(parts)

    def on_end(self) -> None:
        """The engine's answer is complete; its connection is no longer ours."""
        self.link = None
        self.release()
        if self.engine_error is not None:
            self._promise_broken(bytes(self.engine_error))
            return
        self.whole = True
        if self.reader is not None and (rest := self.reader.rest()):
            self.response.body([rest])
        self.response.end()
        self._end(_outcome_of(self.response.status))

    def on_lost(self, known: Lost, why: str) -> None:
        """The connection to the engine is gone before the answer was complete."""
        self.link = None
        if self.open:  # the other end has closed it
            self.release()
            self.response.ending = Ending.CLOSE
            self._end(OK)
            return
        self.owner.lost(self, known, why)

    def _promise_broken(self, body: bytes) -> None:
        status = self.engine_status
        self.response.fail_late(
            wire.engine_error_document(
                status, body, dialect=self.response.dialect, request_id=self.request_id
            )
        )
        # 200 with the wrong kind of body is the engine's fault too
        self._end(_outcome_of(status if status >= 400 else 502))

    def _let_go(self) -> None:
        """Drop what the request holds: its task, its connection, its lease."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
        link, self.link = self.link, None
        if link is not None:
            link.abandon()
        self.release()

    def _end(self, outcome: str) -> None:
        self.over = True
        self.request.drop_body()
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
        self.owner.ended(self, self._row(outcome) if self.model else None)
        self.finished(self)

    def _row(self, outcome: str) -> RequestEnded:
        request = self.request
        counts = self.reader.counts(complete=self.whole) if self.reader is not None else UNKNOWN
        return RequestEnded(
            request=self.request_id,
            model=self.model,
            replica=self.replica,
            key=request.key,
            path=request.head.path_text,
            arrived_us=request.arrived_us,
            leased_us=self.leased_us,
            first_byte_us=self.first_byte_us,
            ended_us=self.owner.clock.now_us(),
            status=self.response.status,
            outcome=outcome,
            tokens_in=counts.tokens_in,
            tokens_out=counts.tokens_out,
            parts=counts.parts,
            counted=counts.counted,
            wake=self.held.wake if self.held else self.wake,
        )


def _outcome_of(status: int) -> str:
    """Return the outcome of a request that the engine answered; errors are classified by fault."""
    if status < 400:
        return OK
    return (ErrorCode.INVALID_REQUEST if status < 500 else ErrorCode.UPSTREAM_PROTOCOL).value
