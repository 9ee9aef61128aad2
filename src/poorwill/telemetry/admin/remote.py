"""Lets operators of other machines in: by a key in a header, or by a cookie that a key was exchanged for.

The cookie names a session that only this process knows. A key never stands in a URL, where logs and histories
keep it. Programs send `Authorization: Bearer KEY`; people type the key into a page, once in twelve hours.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from poorwill.core.errors import ErrorCode, PoorwillError, RequestFault
from poorwill.core.ports.keys import OperatorKeys
from poorwill.core.ports.log import Log
from poorwill.core.words import SECOND_US
from poorwill.telemetry.admin.local_users import ASKED_BY, decoded_headers, error_response
from poorwill.telemetry.admin.shown import Gateway

COOKIE = "__Host-poorwill"
"""The prefix binds it to this very host and to TLS (RFC 6265bis, section 4.1.3)."""
SESSION_S = 12 * 3600
_MOST_SESSIONS = 256
_CHANGES_NOTHING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class _Session:
    name: str
    ends_us: int


@dataclass(slots=True)
class Sessions:
    """Who has logged in. They end with the process."""

    keys: OperatorKeys
    now_us: Callable[[], int]
    open: dict[str, _Session] = field(default_factory=dict)

    def begin(self, name: str) -> str:
        """Begin a session of an operator's key; return what names it. The oldest make room."""
        while len(self.open) >= _MOST_SESSIONS:
            del self.open[next(iter(self.open))]
        token = secrets.token_urlsafe(32)
        self.open[token] = _Session(name, self.now_us() + SESSION_S * SECOND_US)
        return token

    def name_of(self, token: str) -> str | None:
        """Return the key that a session was begun with, None if it is over or the key is not in use."""
        session = self.open.get(token)
        if session is None or self.now_us() >= session.ends_us or not self.keys.is_operator(session.name):
            self.open.pop(token, None)
            return None
        return session.name


@dataclass(frozen=True, slots=True)
class _Admitted:
    """Whose request is passed on, and whether their key is in use still."""

    name: str
    in_use: Callable[[], bool]


class RemoteOperators:
    """ASGI middleware: asks for an operator's key, or for the cookie of a session that one began."""

    def __init__(self, app: ASGIApp, *, gateway: Gateway, sessions: Sessions, log: Log) -> None:
        self._app = app
        self._gateway = gateway
        self._sessions = sessions
        self._keys = sessions.keys
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, log somebody in or out, or refuse the request."""
        if scope["type"] != "http":
            return
        try:
            answer = await self._admit(Request(scope, receive))
        except PoorwillError as error:
            answer = error_response(self._gateway, error)
        if isinstance(answer, Response):
            await answer(scope, receive, send)
        else:
            scope["state"][ASKED_BY] = f"operator {answer.name}"
            await self._app(scope, receive, _while_in_use(send, answer.in_use))

    async def _admit(self, request: Request) -> "_Admitted | Response":
        """Return who asks, or poorwill's own answer. Raises RequestFault for somebody without a key."""
        headers, asked = decoded_headers(request.scope), (request.method, request.url.path)
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            name = self._keys.operator_of(secret.strip().encode())
            if name is None:
                raise _unauthenticated("this is no operator's key, or it is revoked or expired")
            return _Admitted(name, partial(self._keys.is_operator, name))
        self._check_page(request.method, headers)
        if asked == ("POST", "/login"):
            return await self._log_in(request)
        token = _cookie(headers.get("cookie", ""))
        if asked == ("POST", "/logout"):
            self._sessions.open.pop(token, None)
            return _leave_for_start(None)
        name = self._sessions.name_of(token)
        if name is not None:
            return _Admitted(name, lambda: self._sessions.name_of(token) is not None)
        if asked == ("GET", "/"):
            return _login_page("", status=200)
        raise _unauthenticated("the admin listener asks for an operator's key")

    def _check_page(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise RequestFault if a page of another site asks for a change: it would come with the cookie.

        The listener has whatever name the client used: a page that has rebound a name has no cookie for it.
        """
        if method in _CHANGES_NOTHING or headers.get("sec-fetch-site") == "same-origin":
            return
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if problem := self._gateway.foreign_page(method=method, headers=headers, names=(name,)):
            hint = "a proxy in front must pass the header Host on"
            raise RequestFault(ErrorCode.FORBIDDEN, problem, hint=hint)

    async def _log_in(self, request: Request) -> Response:
        text = (await request.body()).decode("utf-8", "replace")
        name = self._keys.operator_of(parse_qs(text).get("key", [""])[0].strip().encode())
        client = request.client.host if request.client else ""
        if name is None:
            self._log.warning("a login was refused", address=client)
            return _login_page("That is no operator's key, or it is revoked or expired.", status=401)
        self._log.info("an operator logged in", operator=name, address=client)
        return _leave_for_start(self._sessions.begin(name))


def _while_in_use(send: Send, in_use: Callable[[], bool]) -> Send:
    """Return what sends an answer, but ends one that goes on, such as events, with the key."""
    over = False

    async def send_on(message: Message) -> None:
        nonlocal over
        if not over:
            over = bool(message.get("more_body")) and not in_use()
            await send({**message, "body": b"", "more_body": False} if over else message)

    return send_on


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _leave_for_start(token: str | None) -> Response:
    answer = RedirectResponse("/", status_code=303, headers={"cache-control": "no-store"})
    age_s = SESSION_S if token else 0
    answer.set_cookie(COOKIE, token or "", max_age=age_s, secure=True, httponly=True, samesite="strict")
    return answer


def _login_page(problem: str, *, status: int) -> Response:
    text = files("poorwill.telemetry.dashboard.page").joinpath("login.html").read_text()
    style = text.partition("<style>")[2].partition("</style>")[0].encode()
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    headers = {
        "content-security-policy": f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    body = text.replace("{problem}", problem)
    return Response(body, status_code=status, media_type="text/html; charset=utf-8", headers=headers)


def _unauthenticated(what: str) -> RequestFault:
    hint = "send Authorization: Bearer KEY; `poorwill keys add NAME --operator` makes one"
    return RequestFault(ErrorCode.UNAUTHENTICATED, what, hint=hint)
