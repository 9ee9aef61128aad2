"""Lets users of this machine in by the user that the kernel names for their connection.

It answers only to its own names: a page on another site must not reach it through a browser, neither by a
cross-origin POST nor by a name that resolves to loopback (DNS rebinding).
"""

from collections.abc import Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.telemetry.admin.listener import PEER_USER
from poorwill.telemetry.admin.shown import Gateway

_FOR_EVERY_USER = frozenset({"/healthz", "/metrics"})
"""Paths that every user of this machine may ask for: they say nothing of clients and change nothing."""
ASKED_BY = "asked_by"
"""The key of who asks in a request's state."""


def error_response(gateway: Gateway, error: PoorwillError) -> JSONResponse:
    """Return an error as an answer."""
    status, document, headers = gateway.error_answer(error)
    return JSONResponse(document, status_code=status, headers=headers)


def decoded_headers(scope: Scope) -> dict[str, str]:
    """Return the headers of a request."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


class LocalUsers:
    """ASGI middleware: refuses requests of web pages on other sites and of other users of this machine."""

    def __init__(self, app: ASGIApp, *, gateway: Gateway, host: str, users: Collection[int]) -> None:
        self._app = app
        self._gateway = gateway
        self._names = (host.lower(),)
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            problem = self._page_problem(scope) or self._user_problem(scope)
            if problem is not None:
                await error_response(self._gateway, problem)(scope, receive, send)
                return
            scope["state"][ASKED_BY] = f"user {scope['state'][PEER_USER]}"
        await self._app(scope, receive, send)

    def _page_problem(self, scope: Scope) -> RequestFault | None:
        problem = self._gateway.foreign_page(
            method=scope["method"], headers=decoded_headers(scope), names=self._names
        )
        return RequestFault(ErrorCode.FORBIDDEN, problem) if problem else None

    def _user_problem(self, scope: Scope) -> RequestFault | None:
        user = scope["state"][PEER_USER]
        if user in self._users or scope["path"] in _FOR_EVERY_USER:
            return None
        whose = "a user that this machine cannot name" if user is None else f"the user with the id {user}"
        return RequestFault(
            ErrorCode.FORBIDDEN,
            f"the admin listener takes no requests from {whose}",
            hint="be the user that runs poorwill, or root, or one of gateway.admin_users",
        )
