"""The handlers of the inference listener: closures over what they need, one per action.

A handler gets an exchange whose request is complete and either answers it, fails it or hands it to the
policy; it returns at once.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from poorwill.core.errors import RequestFault
from poorwill.core.words import ModelName
from poorwill.gateway import wire
from poorwill.gateway.downstream.exchange import Exchange
from poorwill.gateway.downstream.head_checks import refusal
from poorwill.gateway.request_policy import RequestPolicy, unknown_model
from poorwill.gateway.routes import Action

Handler = Callable[[Exchange], None]
Models = Callable[[], Sequence[ModelName]]

_JSON: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),)
_NAMING_PREFIXES = (b"/v1/models/", b"/v1/engines/")


class _BodyFields(msgspec.Struct):
    """The two fields of a body that the gateway reads."""

    model: Any = None
    stream: Any = None


_decode = msgspec.json.Decoder(_BodyFields).decode


def inference_handlers(*, policy: RequestPolicy, models: Models, started_s: int) -> Mapping[Action, Handler]:
    """Return the handler of every action on the inference listener."""
    return {
        Action.RELAY: relay(policy=policy, models=models),
        Action.LIST_MODELS: list_models(models=models, started_s=started_s),
        Action.SHOW_MODEL: show_model(models=models, started_s=started_s),
        Action.HEALTH: health(),
        Action.PREFLIGHT: preflight(),
    }


def relay(*, policy: RequestPolicy, models: Models) -> Handler:
    """Send a request to the model that its body or its path names."""

    def handle(exchange: Exchange) -> None:
        try:
            _read_model(exchange, models)
        except RequestFault as fault:
            exchange.fail(fault)
            return
        policy.begin(exchange)

    return handle


def list_models(*, models: Models, started_s: int) -> Handler:
    """Answer `GET /v1/models` from the configuration: nothing is woken."""

    def handle(exchange: Exchange) -> None:
        rows = [_model_object(name, started_s) for name in models()]
        document = {"object": "list", "data": rows, "has_more": False}
        if rows:  # Anthropic's clients page by these
            document |= {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        exchange.answer(200, [*_JSON], wire.json_bytes(document))

    return handle


def show_model(*, models: Models, started_s: int) -> Handler:
    """Answer `GET /v1/models/NAME` from the configuration: nothing is woken."""

    def handle(exchange: Exchange) -> None:
        name = _segment(exchange.request.head.path.removeprefix(b"/v1/models/"))
        if name in models():
            exchange.answer(200, [*_JSON], wire.json_bytes(_model_object(name, started_s)))
        else:
            exchange.fail(unknown_model(name, models()))

    return handle


def health() -> Handler:
    """Answer that the gateway itself is up, in whatever state its models are."""

    def handle(exchange: Exchange) -> None:
        exchange.answer(200, [*_JSON], b'{"status":"ok"}')

    return handle


def preflight() -> Handler:
    """Let a browser know that a page may send requests; which page, the response says by itself."""
    allowed: Sequence[tuple[bytes, bytes]] = (
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        (b"access-control-allow-headers", b"*, authorization"),
        (b"access-control-max-age", b"600"),
    )

    def handle(exchange: Exchange) -> None:
        exchange.answer(204, [*allowed], b"")

    return handle


def _read_model(exchange: Exchange, models: Models) -> None:
    """Find the model and whether a stream is asked for. Raises RequestFault."""
    if exchange.request.body:
        try:
            ask = _decode(exchange.request.body)
        except msgspec.ValidationError as error:
            raise refusal("the body must be a JSON object that names a `model`") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise refusal(f"the body is not JSON: {error}") from error
        except RecursionError as error:
            raise refusal("the body is nested too deeply") from error
        exchange.streaming = ask.stream is True
        if isinstance(ask.model, str) and ask.model:
            exchange.model = ModelName(ask.model)
            return
        if ask.model is not None:
            raise refusal("`model` must be a string that is not empty")
    named = _named_in_path(exchange.request.head.path, models())
    if named is None:
        raise refusal("the request names no model: the body has no `model`")
    exchange.model = named


def _named_in_path(path: bytes, models: Sequence[ModelName]) -> ModelName | None:
    """Return the configured model that a path like /v1/engines/NAME/completions names."""
    for prefix in _NAMING_PREFIXES:
        if path.startswith(prefix):
            rest = _segment(path.removeprefix(prefix)) + "/"
            named = [name for name in models if rest.startswith(f"{name}/")]
            if named:
                return max(named, key=len)
    return None


def _segment(raw: bytes) -> ModelName:
    return ModelName(unquote_to_bytes(raw).decode("utf-8", "replace"))


def _model_object(name: ModelName, started_s: int) -> dict[str, object]:
    """Return one model in a shape that OpenAI's and Anthropic's clients both read."""
    created = datetime.fromtimestamp(started_s, UTC).isoformat().replace("+00:00", "Z")
    return {
        "id": name,
        "object": "model",
        "created": started_s,
        "owned_by": "poorwill",
        "type": "model",
        "display_name": name,
        "created_at": created,
    }
