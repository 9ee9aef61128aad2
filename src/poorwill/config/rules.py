"""What several keys must satisfy together. Pure: looks at settings and lines, at nothing on the machine.

A rule names the keys it is about; where one of them was reported already, it says nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise
from urllib.parse import urlsplit

from poorwill.config.kinds import nearest, quoted
from poorwill.config.lines import NO_LINES, Lines
from poorwill.config.sheet import Sheet, spell
from poorwill.core.errors import Problem
from poorwill.core.settings import FleetSettings, ModelSettings, OptionKind, OptionKinds
from poorwill.core.words import SECOND_US, TIER_DEPTH, Tier
from poorwill.policies import TierCosts, idle_problem

Costs = Callable[[ModelSettings, Tier], TierCosts | None]
"""Returns what parking a model in a tier costs, by rates and measured wakes; None where that is not known."""

EngineOptions = Mapping[str, OptionKinds | None]
"""The options that each kind of engine knows; None: any option is handed on as a flag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSheet:
    """The sheet as the rules of one model see it: a key may stand in the model or in `[defaults]`."""

    name: str
    sheet: Sheet

    def wrong(self, keys: Sequence[str], what: str, hint: str = "") -> None:
        """Report a problem about `keys` (dotted) at the first of them, unless one is bad already."""
        paths = [self._path(key) for key in keys]
        if not any(self.sheet.is_bad(path) for path in paths):
            own = ("models", self.name, *keys[0].split("."))
            self.sheet.wrong(paths[0], what, hint, shown=spell(own))

    def _path(self, key: str) -> tuple[str, ...]:
        own = ("models", self.name, *key.split("."))
        shared = ("defaults", *key.split("."))
        inherited = not self.sheet.lines.has(own) and self.sheet.lines.has(shared)
        return shared if inherited else own


def check_model(model: ModelSettings, sheet: ModelSheet) -> None:
    """Report what is wrong with one model."""
    _check_engine(model, sheet)
    _check_ladder(model, sheet)
    _check_wake(model, sheet)
    _check_policy(model, sheet)
    _check_hosted(model, sheet)


def _check_engine(model: ModelSettings, sheet: ModelSheet) -> None:
    engine = model.engine
    if model.cloud is not None:  # nothing is started here
        pass
    elif engine.kind == "command":
        _check_command(model, sheet)
    elif engine.command and engine.kind in ("llama.cpp", "toy"):
        hint = 'use args to add arguments, or engine = "command"'
        sheet.wrong(["command", "engine"], f"is not for the engine {engine.kind}", hint)
    if sheet.sheet.partial:
        return
    pathless = not engine.path and model.cloud is None
    if engine.kind == "llama.cpp" and pathless:
        sheet.wrong(["path", "engine"], "is missing", "name the model's GGUF file")
    elif engine.kind in ("vllm", "sglang", "transformers") and pathless:
        hint = "name the model's directory, or a model id of the hub"
        sheet.wrong(["path", "engine"], "is missing", hint)
    elif engine.kind == "ollama" and not engine.engine_model:
        hint = 'e.g. engine_model = "qwen3:0.6b", as ollama list shows it'
        sheet.wrong(["engine_model", "engine"], "is missing", hint)


def _check_command(model: ModelSettings, sheet: ModelSheet) -> None:
    engine = model.engine
    if not engine.command:
        if not sheet.sheet.partial:
            hint = 'e.g. command = ["vllm", "serve", "{path}", "--port", "{port}"]'
            sheet.wrong(["command", "engine"], "is missing", hint)
        return
    words = " ".join((*engine.command, *engine.args, *engine.env.values()))
    if "{port}" not in words and not engine.port:
        hint = "put {port} where the engine expects it, or set the port it always uses as port"
        sheet.wrong(["command", "args", "env", "port"], "has no {port}", hint)
    if "{path}" in words and not engine.path:
        sheet.wrong(["path", "command"], "is missing", "the command has {path}")


def check_options(model: ModelSettings, sheet: ModelSheet, known: OptionKinds | None) -> None:
    """Report options that the model's engine does not have, and values that it does not take."""
    if known is None:
        return
    for name, value in model.engine.options.items():
        if name not in known:
            what = f"the engine {model.engine.kind} has no such option"
            hint = nearest(name, tuple(known)) if known else "it takes none; use args"
            sheet.wrong([f"options.{name}", "engine"], what, hint)
        elif not _fits(value, known[name]):
            kind = known[name]
            words = kind if isinstance(kind, str) else "one of " + ", ".join(map(quoted, kind))
            shown = quoted(value) if isinstance(value, str) else f"{value}".lower()
            sheet.wrong([f"options.{name}", "engine"], f"must be {words}, not {shown}")


def _fits(value: object, kind: OptionKind | tuple[str, ...]) -> bool:
    """Return whether an engine takes the value; TOML keeps true apart from 1."""
    if isinstance(kind, tuple):
        return value in kind
    if isinstance(value, bool):
        return kind is OptionKind.FLAG
    if kind is OptionKind.WHOLE:
        return isinstance(value, int)
    return kind is OptionKind.NUMBER and isinstance(value, int | float)


def _check_ladder(model: ModelSettings, sheet: ModelSheet) -> None:
    ladder = model.replica.park.ladder
    depths = [TIER_DEPTH[tier] for tier in ladder]
    if any(shallow >= deep for shallow, deep in pairwise(depths)):
        order = ", ".join(str(tier) for tier in sorted(set(ladder), key=lambda t: TIER_DEPTH[t]))
        sheet.wrong(["ladder"], "must go from shallow to deep, each tier once", f"write {order}")
    elif ladder[-1] is not Tier.COLD:
        sheet.wrong(["ladder"], 'must end in "cold"', "every other tier can fail; cold always works")


def _check_wake(model: ModelSettings, sheet: ModelSheet) -> None:
    wake = model.replica.wake
    if wake.cap_us < wake.budget_us:
        sheet.wrong(
            ["wake_cap_s", "wake_budget_s"],
            f"{said(wake.cap_us)} is less than wake_budget_s, {said(wake.budget_us)}",
            "a wake goes on after its budget, until the cap",
        )
    if wake.backoff_max_us < wake.backoff_us:
        sheet.wrong(
            ["wake_backoff_max_s", "wake_backoff_s"],
            f"{said(wake.backoff_max_us)} is less than wake_backoff_s, {said(wake.backoff_us)}",
        )
    for phase, limit_us in wake.phase_limits_us.items():
        if limit_us > wake.cap_us:
            sheet.wrong(
                [f"phase_limits_s.{phase}", "wake_cap_s"],
                f"{said(limit_us)} is more than wake_cap_s, {said(wake.cap_us)}",
                "the cap ends the wake first",
            )


def _check_policy(model: ModelSettings, sheet: ModelSheet) -> None:
    policy, ladder = model.policy, model.replica.park.ladder
    if policy.name != "fixed":
        for key, given in (
            ("idle_s", policy.idle_us is not None),
            ("rungs_s", policy.rungs_us),
            ("allow_short_idle", policy.allow_short_idle),
        ):
            if given:
                hint = f'the policy is {policy.name!r}; write name = "fixed", or leave it out'
                sheet.wrong([f"policy.{key}", "policy.name"], 'is only for name = "fixed"', hint)
        return
    if policy.idle_us is None and not sheet.sheet.partial:
        hint = 'write policy = { name = "fixed", idle_s = 300 }'
        sheet.wrong(["policy.idle_s", "policy"], "is missing", hint)
    last_us, last = policy.idle_us or 0, "idle_s"
    for tier in ladder:
        if tier not in policy.rungs_us:
            continue
        rung_us = policy.rungs_us[tier]
        if tier is ladder[0]:
            sheet.wrong([f"policy.rungs_s.{tier}", "ladder"], "is the first tier", "idle_s is its time")
        elif rung_us <= last_us:
            what = f"{said(rung_us)} is not after {last}, {said(last_us)}"
            sheet.wrong([f"policy.rungs_s.{tier}", "policy.idle_s", "ladder"], what)
        last_us, last = rung_us, str(tier)
    for tier in policy.rungs_us:
        if tier not in ladder:
            hint = "the ladder is " + ", ".join(ladder)
            sheet.wrong([f"policy.rungs_s.{tier}", "ladder"], "is not on the ladder", hint)


def _check_hosted(model: ModelSettings, sheet: ModelSheet) -> None:
    hosted = model.hosted
    if hosted is None:
        return
    if (hosted.input_nusd_mtok is None) != (hosted.output_nusd_mtok is None):
        given = "input" if hosted.output_nusd_mtok is None else "output"
        other = "output" if given == "input" else "input"
        hint = f"give {other}_usd_mtok as well, or neither"
        sheet.wrong([f"hosted.{given}_usd_mtok"], "is only half of a price", hint)
    if not hosted.bridge:
        return
    if not hosted.url and not sheet.sheet.partial:
        hint = 'e.g. url = "https://api.groq.com/openai/v1"'
        sheet.wrong(["hosted.url"], "is missing: the bridge leads nowhere", hint)
    if hosted.url.startswith("http:") and not _on_this_machine(hosted.url):
        hint = "use https; http is for this machine alone"
        sheet.wrong(["hosted.url"], "would send users' text and the API key in the clear", hint)
    if not hosted.key_env and not sheet.sheet.partial:
        hint = 'name the variable that holds the API key, e.g. key_env = "GROQ_API_KEY"'
        sheet.wrong(["hosted.key_env"], "is missing", hint)


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_fleet(fleet: FleetSettings, sheet: Sheet) -> None:
    """Report what is wrong with the fleet as a whole."""
    _check_ports(fleet, sheet)
    _check_rates(fleet, sheet)
    _check_spend(fleet, sheet)
    names = [str(model.name) for model in fleet.models]
    for key, limits in (
        ("model_day_usd", fleet.spend.model_day_nusd),
        ("model_month_usd", fleet.spend.model_month_nusd),
    ):
        _check_names(sheet, ("spend", key), limits, names)
    for model in fleet.models:
        if fleet.memory_bytes and model.memory_bytes > fleet.memory_bytes:
            ModelSheet(name=model.name, sheet=sheet).wrong(
                ["memory"], "is more than the whole fleet's memory", "see memory under [fleet]"
            )


def _check_ports(fleet: FleetSettings, sheet: Sheet) -> None:
    taken: dict[int, str] = {}
    uses = [
        (fleet.gateway.port, ("gateway", "listen")),
        (fleet.gateway.admin_port, ("gateway", "admin")),
        *((model.engine.port, ("models", model.name, "port")) for model in fleet.models),
    ]
    for port, path in uses:
        if port and port in taken and not sheet.is_bad(path):
            sheet.wrong(path, f"port {port} is used twice", f"{taken[port]} has it")
        taken.setdefault(port, spell(path))


def _check_rates(fleet: FleetSettings, sheet: Sheet) -> None:
    if sheet.is_bad(("rates",)):
        return
    seen: dict[tuple[object, ...], int] = {}
    for index, rate in enumerate(fleet.rates):
        path = ("rates", index)
        key = (rate.effective_us, rate.model, rate.replica, rate.driver)
        if key in seen:
            hint = "give it another effective date, model, replica or driver"
            sheet.wrong(path, f"takes effect together with rates[{seen[key]}]", hint)
        seen.setdefault(key, index)


def _check_spend(fleet: FleetSettings, sheet: Sheet) -> None:
    if not fleet.spend.any_limit or sheet.is_bad(("rates",)):
        return
    currencies = sorted({rate.currency for rate in fleet.rates})
    bridged = any(model.hosted is not None and model.hosted.bridge for model in fleet.models)
    if bridged and currencies and currencies != ["USD"]:
        what = f"limits sums of money, but the rates are in {' and '.join(currencies)} and the bridge in USD"
        sheet.wrong(("spend",), what, "amounts in several currencies cannot be added up: use USD")
        return
    if not currencies:
        sheet.wrong(("spend",), "limits nothing: no time has a price", "add [[rates]]")
    elif len(currencies) > 1:
        what = f"limits sums of money, but the rates are in {' and '.join(currencies)}"
        sheet.wrong(("spend",), what, "amounts in several currencies cannot be added up: use one")


def _check_names(
    sheet: Sheet, path: tuple[str, ...], limits: Mapping[str, int], names: Sequence[str]
) -> None:
    for name in limits:
        if name not in names and not sheet.is_bad(path):
            sheet.wrong((*path, name), "is no model here", nearest(name, names))


def short_idles(fleet: FleetSettings, costs: Costs, lines: Lines = NO_LINES) -> Sequence[Problem]:
    """Return a problem for each fixed idle time that is shorter than the break-even, unless allowed."""
    sheet = Sheet(lines=lines)
    for model in fleet.models:
        policy = model.policy
        if policy.idle_us is None or policy.allow_short_idle:
            continue
        known = costs(model, model.replica.park.ladder[0])
        if known is None:
            continue
        found = idle_problem(policy.idle_us, known, where="", wait_nusd_s=policy.wait_nusd_s)
        if found is not None:
            here = ModelSheet(name=model.name, sheet=sheet)
            here.wrong(["policy.idle_s"], found.what, found.hint)
    return sheet.in_order()


def said(duration_us: int) -> str:
    """Return a duration in microseconds as messages say it."""
    return f"{duration_us / SECOND_US:g} s"
