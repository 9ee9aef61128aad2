"""Engines that somebody else runs: what follows from an address, and which keys do not fit one."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from poorwill.config.problems import ModelProblems
from poorwill.config.values.addresses import is_public
from poorwill.core.settings import (
    EngineElsewhere,
    EngineUrl,
    FloorSettings,
    ModelSettings,
    PolicySettings,
    RateSettings,
)
from poorwill.core.words import SECOND_US, Tier

STARTING_KEYS = ("path", "command", "stop_command", "args", "env", "options", "port", "cwd", "engine_user")
"""Keys about starting an engine."""
AGAIN_US = 30 * SECOND_US
"""The longest pause before one that was lost is looked for again: to look costs nothing."""
_PARKING_KEYS = ("ladder", "floor", "policy", "replicas")


def settled(model: ModelSettings, given: Collection[str]) -> ModelSettings:
    """Return a model with what an engine elsewhere is by nature: always ready, and never parked.

    `given` are the keys that its own table has; what `[defaults]` say of engines that are started here is not
    for it.
    """
    if model.away is None or model.cloud is not None:
        return model
    kind = model.engine.kind if "engine" in given else "command"
    park, wake = replace(model.replica.park, ladder=(Tier.COLD,)), model.replica.wake
    if "wake_backoff_max_s" not in given:
        wake = replace(wake, backoff_us=min(wake.backoff_us, AGAIN_US), backoff_max_us=AGAIN_US)
    return replace(
        model,
        engine=replace(model.engine, kind=kind, cwd=""),
        replica=replace(model.replica, park=park, wake=wake),
        policy=PolicySettings(),
        floor=FloorSettings(always=True),
    )


def priced(rates: Sequence[RateSettings], models: Sequence[ModelSettings]) -> tuple[RateSettings, ...]:
    """Return the rates; what an engine elsewhere costs it costs always, whether poorwill uses it or not."""
    always = {model.name for model in models if model.away is not None and model.cloud is None}
    return tuple(
        replace(rate, parked_nusd_h={Tier.COLD: rate.active_nusd_h, **rate.parked_nusd_h})
        if rate.model in always
        else rate
        for rate in rates
    )


def check_elsewhere(model: ModelSettings, found: ModelProblems) -> None:
    """Report keys that do not fit a model whose engine poorwill does not start."""
    if model.elsewhere.engine is None:
        for key, given in (("url_key_env", model.elsewhere.url_key_env), ("url_ca", model.elsewhere.url_ca)):
            if given:
                found.wrong([key], "is for a model with a url")
    if model.away is None or model.away.engine is None:
        return
    _check_reach(model.away, model.away.engine, "cloud." if model.cloud else "", found)
    where, keys = (
        ("on a rented machine", STARTING_KEYS[:-2]) if model.cloud else ("with a url", STARTING_KEYS)
    )
    _refuse(keys, f"is not for a model {where}", "the engine is started where it is", found)
    if model.cloud is None:
        hint = "take it out; [models.NAME.cloud] is for a machine that can be parked"
        what = "is for engines that poorwill parks; with a url it is always ready"
        _refuse(_PARKING_KEYS, what, hint, found)
    elif model.elsewhere.engine is not None:
        found.wrong(["url", "cloud"], "is cloud.url for a rented machine", "take one of the two out")


def _check_reach(away: EngineElsewhere, url: EngineUrl, at: str, found: ModelProblems) -> None:
    if away.url_ca and not url.secure:
        found.wrong([f"{at}url_ca", f"{at}url"], "is for https alone", "leave it out")
    if away.url_key_env and not url.secure and is_public(url.host):
        keys = [f"{at}url", f"{at}url_key_env"]
        found.wrong(keys, "would send the engine's key in the clear", "use https")
    if not at and url.host.startswith("{"):
        found.wrong(["url"], f"{url.host} is for rented machines", "write the engine's address")


def _refuse(keys: Sequence[str], what: str, hint: str, found: ModelProblems) -> None:
    for key in keys:
        if found.found.lines.has(("models", found.name, key)):
            found.wrong([key], what, hint)
