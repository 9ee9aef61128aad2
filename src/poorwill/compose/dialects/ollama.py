"""Ollama's API on the inference listener: translated on the way in and on the way back."""

from collections.abc import Callable
from dataclasses import replace

from poorwill.core.errors import RequestFault, unknown_model
from poorwill.core.ports.view import FleetView
from poorwill.core.words import ModelName
from poorwill.engines.ollama_api import catalogue
from poorwill.engines.ollama_api.answers import OllamaAnswer
from poorwill.engines.ollama_api.requests import asked_model, translated
from poorwill.gateway import wire
from poorwill.gateway.downstream.exchange import Exchange
from poorwill.gateway.inference import Handler, resolve
from poorwill.gateway.request_policy import RequestPolicy


def ollama_handler(
    *, view: FleetView, context_of: Callable[[ModelName], int]
) -> Callable[[RequestPolicy], Handler]:
    """Return what makes the handler of Ollama's API. `context_of` a model: in tokens, 0 if unknown."""

    def make(policy: RequestPolicy) -> Handler:
        since_us = policy.clock.now_us()

        def usable(exchange: Exchange) -> list[ModelName]:
            return [name for name in view.models() if policy.limiter.may_use(exchange.request.key, name)]

        def handle(exchange: Exchange) -> None:
            head, now_us = exchange.request.head, policy.clock.now_us()
            match head.path_text:
                case "/":
                    exchange.answer(200, [(b"content-type", b"text/plain")], b"Ollama is running")
                case "/api/version":
                    _say(exchange, {"version": catalogue.VERSION})
                case "/api/tags":
                    _say(exchange, catalogue.tags(usable(exchange), since_us=since_us))
                case "/api/ps":
                    models = usable(exchange)
                    ready = [one for one in view.status() if one.model in models]
                    _say(exchange, catalogue.loaded(ready, now_us=now_us))
                case "/api/show":
                    _show(exchange, usable(exchange))
                case _:
                    _begin(exchange, policy, view)

        def _show(exchange: Exchange, models: list[ModelName]) -> None:
            try:
                model = asked_model(exchange.request.body, models)
                if model not in models:
                    raise unknown_model(model, models)
            except RequestFault as fault:
                exchange.fail(fault)
                return
            _say(exchange, catalogue.shown(model, context=context_of(model), since_us=since_us))

        return handle

    return make


def _say(exchange: Exchange, document: object) -> None:
    exchange.answer(200, [(b"content-type", b"application/json; charset=utf-8")], wire.json_bytes(document))


def _begin(exchange: Exchange, policy: RequestPolicy, view: FleetView) -> None:
    """Send a request on its way as one of OpenAI's API."""
    request, path = exchange.request, exchange.request.head.path_text
    try:
        asked = translated(path, request.body, view.models())
    except RequestFault as fault:
        exchange.fail(fault)
        return
    lines = request.head.forward.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"content-type:")]
    forward = b"content-type: application/json\r\n" + b"\r\n".join(kept)
    raw = asked.path.encode()
    request.head = replace(request.head, target=raw, path=raw, path_text=asked.path, forward=forward)
    request.body = asked.body
    exchange.model, exchange.streaming = asked.model, asked.streaming
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
