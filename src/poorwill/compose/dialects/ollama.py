"""Ollama's API on the inference listener: translated on the way in and on the way back."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from poorwill.core.errors import RequestFault, unknown_model
from poorwill.core.ports.view import FleetView
from poorwill.core.words import SECOND_US, ModelName
from poorwill.engines.ollama_api import catalogue
from poorwill.engines.ollama_api.answers import OllamaAnswer
from poorwill.engines.ollama_api.requests import asked_model, translated
from poorwill.gateway import wire
from poorwill.gateway.downstream.exchange import Exchange
from poorwill.gateway.inference import Handler, resolve
from poorwill.gateway.request_policy import RequestPolicy

_BIG_BYTES = 2**20
_RESTS = 3
"""How many times as long as it took nothing big is translated."""


def ollama_handler(*, view: FleetView) -> Callable[[RequestPolicy], Handler]:
    """Return what makes the handler of Ollama's API."""

    def make(policy: RequestPolicy) -> Handler:
        tell = _catalogue(policy, view)
        begin = _translating(policy)

        def handle(exchange: Exchange) -> None:
            try:
                if not tell(exchange):
                    begin(exchange)
            except RequestFault as fault:
                exchange.fail(fault)

        return handle

    return make


def _names(exchange: Exchange, policy: RequestPolicy) -> Mapping[ModelName, Mapping[str, object]]:
    """Return what the request's key may use, by every name that it has."""
    key = exchange.request.key
    rows = policy.engines.rows(lambda model: policy.limiter.may_use(key, model))
    return {ModelName(str(row["id"])): row for row in rows}


def _catalogue(policy: RequestPolicy, view: FleetView) -> Callable[[Exchange], bool]:
    """Return what answers questions about models; it returns whether it was one. Raises RequestFault."""
    since_us = policy.clock.now_us()

    def tell(exchange: Exchange) -> bool:
        path = exchange.request.head.path_text
        models = _names(exchange, policy)
        if path == "/":
            exchange.answer(200, [(b"content-type", b"text/plain")], b"Ollama is running")
        elif path == "/api/version":
            _say(exchange, {"version": catalogue.VERSION})
        elif path == "/api/tags":
            _say(exchange, catalogue.tags(models, since_us=since_us))
        elif path == "/api/ps":
            ready = [one for one in view.status() if one.model in models]
            _say(exchange, catalogue.loaded(ready, now_us=policy.clock.now_us()))
        elif path == "/api/show":
            model = asked_model(exchange.request.body, models)
            if model not in models:
                raise unknown_model(model, list(models))
            _say(exchange, catalogue.shown(model, models[model], since_us=since_us))
        return exchange.over

    return tell


def _translating(policy: RequestPolicy) -> Handler:
    """Return what sends requests on their way as ones of OpenAI's API. It raises RequestFault."""
    turn = asyncio.Lock()

    def begin(exchange: Exchange) -> None:
        if len(exchange.request.body) > _BIG_BYTES:
            exchange.task = policy.spawn(begin_big(exchange))
        else:
            _begin(exchange, policy)

    async def begin_big(exchange: Exchange) -> None:
        """Translate one large body at a time, with rests, so that small ones do not wait for several."""
        async with turn:
            exchange.task = None
            began_us = policy.clock.now_us()
            try:
                _begin(exchange, policy)
            except RequestFault as fault:
                exchange.fail(fault)
            await asyncio.sleep(_RESTS * (policy.clock.now_us() - began_us) / SECOND_US)

    return begin


def _say(exchange: Exchange, document: object) -> None:
    exchange.answer(200, [(b"content-type", b"application/json; charset=utf-8")], wire.json_bytes(document))


def _begin(exchange: Exchange, policy: RequestPolicy) -> None:
    request, path = exchange.request, exchange.request.head.path_text
    asked = translated(path, request.body, _names(exchange, policy))
    lines = request.head.forward.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"content-type:")]
    forward = b"content-type: application/json\r\n" + b"\r\n".join(kept)
    raw = asked.path.encode()
    request.head = replace(request.head, target=raw, path=raw, path_text=asked.path, forward=forward)
    request.body = asked.body
    exchange.model, exchange.streaming = asked.model, asked.streaming
    resolve(exchange, policy)
    resolve(exchange, policy)
    exchange.response.lines = asked.streaming
    exchange.translates = lambda status, content_type: OllamaAnswer(
        path=path,
        model=asked.model,
        loads=asked.loads,
        status=status,
        content_type=content_type,
        began_us=request.arrived_us,
        now_us=policy.clock.now_us,
    )
    policy.begin(exchange)
