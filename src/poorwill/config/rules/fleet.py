"""What the models, listeners, rates and limits of a fleet must satisfy together."""

import re
from collections.abc import Mapping, Sequence

from poorwill.config.problems import FileProblems, ModelProblems, spell
from poorwill.config.values.scalars import MODEL_NAME, nearest
from poorwill.core.settings import FleetSettings
from poorwill.core.words import Tier


def check_fleet(fleet: FleetSettings, found: FileProblems) -> None:
    """Report what is wrong with the fleet as a whole."""
    _check_ports(fleet, found)
    _check_names_of_models(fleet, found)
    _check_rates(fleet, found)
    _check_spend(fleet, found)
    names = [str(model.name) for model in fleet.models]
    for key, limits in (
        ("model_day_usd", fleet.spend.model_day_nusd),
        ("model_month_usd", fleet.spend.model_month_nusd),
    ):
        _check_names(found, ("spend", key), limits, names)
    for model in fleet.models:
        if fleet.confine_engines and Tier.FROZEN in model.replica.park.ladder:
            what = "has `frozen`, whose wakes would undo confine_engines"
            ModelProblems(name=model.name, found=found).wrong(["ladder"], what, "take one of the two out")
        if fleet.memory_bytes and model.memory_bytes > fleet.memory_bytes:
            ModelProblems(name=model.name, found=found).wrong(
                ["memory"], "is more than the whole fleet's memory", "see memory under [fleet]"
            )
        elif fleet.memory_bytes and model.memory_bytes * model.replicas.most > fleet.memory_bytes:
            ModelProblems(name=model.name, found=found).wrong(
                ["replicas", "memory"], "need more than the whole fleet's memory", "have fewer replicas"
            )


def _check_ports(fleet: FleetSettings, found: FileProblems) -> None:
    taken: dict[int, str] = {}
    uses = [
        (fleet.gateway.listen.port, ("gateway", "listen")),
        (fleet.gateway.admin.port, ("gateway", "admin")),
        *((one.port, ("gateway", name)) for name, one in fleet.gateway.beside.items()),
        *((model.engine.port, ("models", model.name, "port")) for model in fleet.models),
    ]
    for port, path in uses:
        if port and port in taken and not found.is_bad(path):
            found.wrong(path, f"port {port} is used twice", f"{taken[port]} has it")
        taken.setdefault(port, spell(path))


def _check_names_of_models(fleet: FleetSettings, found: FileProblems) -> None:
    """Report names for clients that mean two things, or that no name may be."""
    meant = {str(model.name): f"the model {model.name}" for model in fleet.models}
    for model in fleet.models:
        here = ModelProblems(name=model.name, found=found)
        names = [
            *(("aliases", name) for name in model.aliases),
            *(("presets", name) for name in model.presets),
            *(("adapters", name) for name in model.engine.adapters),
        ]
        for key, name in names:
            if not re.fullmatch(MODEL_NAME, name):
                here.wrong([key], f"{name!r} is no name for a model", "letters, digits and . _ - : / @ +")
            elif name in meant:
                here.wrong([key], f"{name} is {meant[name]} already", "a name means one thing")
            meant.setdefault(name, f"one of the {key} of {model.name}")
        for name, values in model.presets.items():
            for fixed in sorted({"model", "stream", "messages", "prompt", "input"} & values.keys()):
                here.wrong(["presets"], f"{name} sets {fixed}, which is the client's alone")
        if model.engine.adapters and model.engine.kind != "vllm":
            here.wrong(["adapters"], f"{model.engine.kind} takes no LoRA adapters by name", "vllm does")


def _check_rates(fleet: FleetSettings, found: FileProblems) -> None:
    if found.is_bad(("rates",)):
        return
    seen: dict[tuple[object, ...], int] = {}
    for index, rate in enumerate(fleet.rates):
        path = ("rates", index)
        key = (rate.effective_us, rate.model, rate.replica, rate.host, rate.driver)
        if key in seen:
            hint = "give it another effective date, model, replica, host or driver"
            found.wrong(path, f"takes effect together with rates[{seen[key]}]", hint)
        seen.setdefault(key, index)


def _check_spend(fleet: FleetSettings, found: FileProblems) -> None:
    if not fleet.spend.any_limit or found.is_bad(("rates",)):
        return
    currencies = sorted({rate.currency for rate in fleet.rates})
    bridged = any(model.hosted is not None and model.hosted.bridge for model in fleet.models)
    if bridged and currencies and currencies != ["USD"]:
        what = f"limits sums of money, but the rates are in {' and '.join(currencies)} and the bridge in USD"
        found.wrong(("spend",), what, "amounts in several currencies cannot be added up: use USD")
        return
    if not currencies:
        found.wrong(("spend",), "limits nothing: no time has a price", "add [[rates]]")
    elif len(currencies) > 1:
        what = f"limits sums of money, but the rates are in {' and '.join(currencies)}"
        found.wrong(("spend",), what, "amounts in several currencies cannot be added up: use one")


def _check_names(
    found: FileProblems, path: tuple[str, ...], limits: Mapping[str, int], names: Sequence[str]
) -> None:
    for name in limits:
        if name not in names and not found.is_bad(path):
            found.wrong((*path, name), "is no model here", nearest(name, names))
