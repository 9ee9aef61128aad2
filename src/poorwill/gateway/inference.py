"""The handlers of the inference listener: closures over what they need, one per action.

A handler gets an exchange whose request is complete and either answers it, fails it or hands it to the
policy; it returns at once.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl, unquote_to_bytes

from poorwill.core.errors import ErrorCode, RequestFault, unknown_model
from poorwill.core.words import SECOND_US, ModelName
from poorwill.gateway import wire
from poorwill.gateway.bridge.parts import Spawn
from poorwill.gateway.downstream.exchange import Exchange
from poorwill.gateway.downstream.head_checks import refusal
from poorwill.gateway.downstream.spool import Spool, no_disk
from poorwill.gateway.request_policy import RequestPolicy
from poorwill.gateway.routes import VENDOR, Action, NoRoute

Handler = Callable[[Exchange], None]
Models = Callable[[], Sequence[ModelName]]

_JSON: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),)
_BIG_BYTES = 2**20
"""A body beyond this is looked at in turn: 32 MB of JSON take up to 80 ms."""
_RESTS = 3
"""How many times as long as it took nothing big is looked at."""
_NAMING_PREFIXES = (b"/v1/models/", b"/v1/engines/")
_NAME_A_MODEL = (b"/v1/audio/", b"/v1/images/", b"/v1/rerank", b"/v1/score")
"""Paths whose body has to say which model is meant: a 404 would send people looking for the path."""


def inference_handlers(
    *,
    policy: RequestPolicy,
    models: Models,
    spawn: Spawn,
    ollama: Callable[[RequestPolicy], Handler],
) -> Mapping[Action, Handler]:
    """Return the handler of every action on the inference listener."""
    return {
        Action.TUNNEL: tunnel(policy=policy),
        Action.OLLAMA: ollama(policy),
        Action.RELAY: relay(policy=policy, models=models, spawn=spawn),
        Action.LIST_MODELS: list_models(policy=policy),
        Action.SHOW_MODEL: show_model(policy=policy),
        Action.HEALTH: health,
        Action.PREFLIGHT: preflight,
    }


def relay(*, policy: RequestPolicy, models: Models, spawn: Spawn) -> Handler:
    """Send a request to the model that its body or its path names."""
    turn = asyncio.Lock()

    def begin(exchange: Exchange) -> None:
        try:
            _read_body(exchange, policy, models)
            resolve(exchange, policy)
            _check_path(exchange, policy)
        except RequestFault as fault:
            exchange.fail(fault)
            return
        policy.begin(exchange)

    async def begin_big(exchange: Exchange) -> None:
        """Look at one big body at a time, with rests, so that small requests do not wait for several."""
        async with turn:
            exchange.task = None
            began_us = policy.clock.now_us()
            begin(exchange)
            await asyncio.sleep(_RESTS * (policy.clock.now_us() - began_us) / SECOND_US)

    async def begin_form(exchange: Exchange, spool: Spool) -> None:
        """Look for the fields of a form that is on disk."""
        content_type, dialects = exchange.request.head.content_type, policy.engines.dialects
        try:
            await spool.flush()
            spans = await spool.work(lambda: dialects.form_spans(spool, content_type))
            model, exchange.streaming = await spool.work(lambda: dialects.read_form(spool, spans))
        except (RequestFault, OSError) as error:
            exchange.task = None
            exchange.fail(no_disk(error) if isinstance(error, OSError) else error)
            return
        exchange.task = None
        exchange.model, spool.model_span = model, spans.get(b"model", (0, 0))
        begin(exchange)

    def handle(exchange: Exchange) -> None:
        if exchange.request.spool is not None:
            exchange.task = spawn(begin_form(exchange, exchange.request.spool))
        elif len(exchange.request.body) > _BIG_BYTES:
            exchange.task = spawn(begin_big(exchange))
        else:
            begin(exchange)

    return handle


def tunnel(*, policy: RequestPolicy) -> Handler:
    """Open a tunnel to the model that the query names: a WebSocket, whose bytes pass as they come."""

    def handle(exchange: Exchange) -> None:
        head = exchange.request.head
        exchange.model = _named_in_query(exchange) or ModelName("")
        try:
            if not head.websocket:
                raise refusal(f"{head.path_text} is for WebSockets: an `Upgrade: websocket` is missing")
            if not exchange.model:
                raise refusal(f"the query names no model: {head.path_text}?model=NAME")
            resolve(exchange, policy)
            _check_path(exchange, policy)
        except RequestFault as fault:
            exchange.fail(fault)
            return
        policy.begin(exchange)

    return handle


def list_models(*, policy: RequestPolicy) -> Handler:
    """Answer `GET /v1/models` from the configuration: nothing is woken."""

    def handle(exchange: Exchange) -> None:
        rows = _usable(exchange, policy)
        document = {"object": "list", "data": rows, "has_more": False}
        if rows:  # Anthropic's clients page by these
            document |= {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        exchange.answer(200, [*_JSON], wire.json_bytes(document))

    return handle


def show_model(*, policy: RequestPolicy) -> Handler:
    """Answer `GET /v1/models/NAME` from the configuration: nothing is woken."""

    def handle(exchange: Exchange) -> None:
        name = _segment(exchange.request.head.path.removeprefix(b"/v1/models/"))
        usable = _usable(exchange, policy)
        row = next((row for row in usable if row["id"] == name), None)
        if row is not None:
            exchange.answer(200, [*_JSON], wire.json_bytes(row))
        else:
            exchange.fail(unknown_model(name, [str(row["id"]) for row in usable]))

    return handle


def _usable(exchange: Exchange, policy: RequestPolicy) -> Sequence[Mapping[str, object]]:
    """Return what is listed of the models that the request's key may use."""
    return policy.engines.rows(lambda name: policy.limiter.may_use(exchange.request.key, name))


def health(exchange: Exchange) -> None:
    """Answer that the gateway itself is up, in whatever state its models are."""
    exchange.answer(200, [*_JSON], b'{"status":"ok"}')


def preflight(exchange: Exchange) -> None:
    """Let a browser know that a page may send requests; which page, the response says by itself."""
    allowed = [
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        (b"access-control-allow-headers", b"*, authorization"),
        (b"access-control-max-age", b"600"),
    ]
    exchange.answer(204, allowed, b"")


def _read_body(exchange: Exchange, policy: RequestPolicy, models: Models) -> None:
    """Find the model and whether a stream is asked for. Raises RequestFault."""
    request = exchange.request
    if request.body:
        model, exchange.streaming = policy.engines.dialects.read_fields(
            request.body, request.head.content_type
        )
        if model:
            exchange.model = model
    if exchange.model:
        return
    named = _named_in_path(request.head.path, models()) or _named_in_query(exchange)
    if named is None and (request.route.json_answer or request.head.path.startswith(_NAME_A_MODEL)):
        raise refusal("the request names no model: the body has no `model`")
    if named is None:
        raise NoRoute(method=request.head.method.decode(), path=request.head.path_text, allowed=())
    exchange.model = named


def resolve(exchange: Exchange, policy: RequestPolicy) -> None:
    """Find out what the name means that the client used, if it is not the model's own."""
    meant = policy.engines.meaning(exchange.model)
    if meant is not None:
        exchange.model, exchange.adapter = meant.model, bool(meant.adapter)
        exchange.engine_name = meant.adapter or meant.model
        if meant.changed is not None:
            exchange.request.body = meant.changed(exchange.request.body)


def _check_path(exchange: Exchange, policy: RequestPolicy) -> None:
    """Raises RequestFault if the model's engine does not serve the path: it is not woken for its 404."""
    served = policy.engines.paths(exchange.model) if exchange.request.route is not VENDOR else None
    path = exchange.request.head.path_text
    if served is not None and path not in served:
        model, exchange.model = exchange.model, ModelName("")
        raise RequestFault(
            ErrorCode.ROUTE_NOT_FOUND,
            f"the engine of {model} serves no {path[:200]}",
            hint="it serves " + ", ".join(sorted(served)),
        )


def _named_in_path(path: bytes, models: Sequence[ModelName]) -> ModelName | None:
    """Return the configured model that a path like /v1/engines/NAME/completions names."""
    for prefix in _NAMING_PREFIXES:
        if path.startswith(prefix):
            rest = _segment(path.removeprefix(prefix)) + "/"
            named = [name for name in models if rest.startswith(f"{name}/")]
            if named:
                return max(named, key=len)
    return None


def _named_in_query(exchange: Exchange) -> ModelName | None:
    """Return the model that `?model=` names."""
    query = exchange.request.head.target.partition(b"?")[2]
    named = dict(parse_qsl(query.decode("latin-1"))).get("model") if b"model=" in query else None
    return ModelName(named) if named else None


def _segment(raw: bytes) -> ModelName:
    return ModelName(unquote_to_bytes(raw).decode("utf-8", "replace"))
