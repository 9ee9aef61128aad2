"""A fleet's dashboard as handlers of requests: the page, its questions about the past, its events."""

import base64
import hashlib
from collections.abc import Collection, Mapping

from msgspec import to_builtins
from starlette.requests import Request
from starlette.responses import Response

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.view import FleetView
from poorwill.hosts.files.reach import Relayed
from poorwill.telemetry.dashboard.captures import Captures
from poorwill.telemetry.dashboard.events import EventResponse, EventStreams
from poorwill.telemetry.dashboard.history import (
    KEPT_S,
    LIVE_S,
    MOST_ROWS,
    FleetHistory,
    HistoryAnswers,
    count,
    history_questions,
)
from poorwill.telemetry.dashboard.page import page
from poorwill.telemetry.dashboard.playground import Playground
from poorwill.telemetry.dashboard.pulls import Pulls


class FleetDashboard:
    """What the admin listener shows of a fleet. Implements the gateway's `Dashboard`."""

    def __init__(
        self,
        *,
        fleet: FleetView,
        history: FleetHistory,
        playground: Playground,
        pulls: Pulls,
        captures: Captures,
        clock: Clock,
        most_streams: int,
        hosts: Collection[Relayed],
    ) -> None:
        answers = HistoryAnswers()
        self._questions = {
            name: answers.endpoint(question, LIVE_S if name == "log" else KEPT_S)
            for name, question in history_questions(history=history, clock=clock).items()
        }
        self._fleet = fleet
        self._streams = EventStreams(most=most_streams)
        self._page = _page_response()
        self.pulls = pulls
        self.captures = captures
        self.playground = playground
        self.chat, self.ledger = playground.chat, history.copy
        self.pull, self.stop_pull = pulls.ask, pulls.stop
        self.prompt = captures.prompt
        self._hosts = hosts

    async def page(self, request: Request) -> Response:
        """Answer with the page, which has in it everything that it needs."""
        return self._page

    async def past(self, request: Request) -> Response:
        """Answer a question about the past. Raises RequestFault(ROUTE_NOT_FOUND) for one there is not."""
        name = request.path_params["question"]
        if name not in self._questions:
            questions = ", ".join(self._questions)
            raise RequestFault(
                ErrorCode.ROUTE_NOT_FOUND,
                f"nothing here answers {request.method} {request.url.path[:200]}",
                hint=f"the questions are {questions}",
            )
        return await self._questions[name](request)

    async def events(self, request: Request) -> Response:
        """Answer with a stream of what happens. Raises TryLater if too many are open."""
        self._streams.check_room()
        most = count(request, "most", MOST_ROWS, MOST_ROWS) if "most" in request.query_params else None
        return EventResponse(feed=self._fleet.events(), streams=self._streams, most=most)

    def standing(self) -> Mapping[str, object]:
        """Return what `/status` says besides the fleet's state."""
        return {
            "pulls": to_builtins(self.pulls.now()),
            "captures": to_builtins(self.captures.now()),
            "hosts": [host.now() for host in self._hosts],
        }

    def end_streams(self) -> None:
        """End every open stream of events."""
        self._streams.end_all()


def _page_response() -> Response:
    """Return the page as it leaves: nothing from elsewhere may run on it, nor what is written into it."""
    content = page()
    headers = {
        "content-security-policy": f"default-src 'none'; script-src {_inline(content, b'script')}; "
        f"style-src {_inline(content, b'style')}; img-src data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)


def _inline(page: bytes, tag: bytes) -> str:
    """Return the content of a tag as a source of a security policy: the digest of exactly these bytes."""
    content = page.partition(b"<" + tag + b">")[2].partition(b"</" + tag + b">")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
