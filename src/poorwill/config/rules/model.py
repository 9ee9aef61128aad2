"""What the keys of one model must satisfy together.

A rule names the keys it is about; if one of them was reported already, it says nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from itertools import pairwise
from urllib.parse import urlsplit

from poorwill.config.key_lines import NO_LINES, KeyLines
from poorwill.config.problems import FileProblems, ModelProblems
from poorwill.config.values.scalars import in_seconds, nearest, quoted
from poorwill.core.errors import Problem
from poorwill.core.settings import FleetSettings, ModelSettings, OptionKind, OptionKinds
from poorwill.core.words import TIER_DEPTH, Tier
from poorwill.policies import TierCosts, idle_problem

Costs = Callable[[ModelSettings, Tier], TierCosts | None]
"""Returns what parking a model in a tier costs, by rates and measured wakes; None where that is not known."""

EngineOptions = Mapping[str, OptionKinds | None]
"""The options that each kind of engine knows; None: any option is handed on as a flag."""


def check_model(model: ModelSettings, found: ModelProblems) -> None:
    """Report what is wrong with one model."""
    _check_engine(model, found)
    _check_ladder(model, found)
    _check_wake(model, found)
    _check_policy(model, found)
    _check_hosted(model, found)


def _check_engine(model: ModelSettings, found: ModelProblems) -> None:
    engine = model.engine
    if model.cloud is not None:  # nothing is started here
        pass
    elif engine.kind == "command":
        _check_command(model, found)
    elif engine.command and engine.kind in ("llama.cpp", "toy"):
        hint = 'use args to add arguments, or engine = "command"'
        found.wrong(["command", "engine"], f"is not for the engine {engine.kind}", hint)
    if found.found.partial:
        return
    pathless = not engine.path and model.cloud is None
    if engine.kind == "llama.cpp" and pathless:
        found.wrong(["path", "engine"], "is missing", "name the model's GGUF file")
    elif engine.kind in ("vllm", "sglang", "transformers") and pathless:
        hint = "name the model's directory, or a model id of the hub"
        found.wrong(["path", "engine"], "is missing", hint)
    elif engine.kind == "ollama" and not engine.engine_model:
        hint = 'e.g. engine_model = "qwen3:0.6b", as ollama list shows it'
        found.wrong(["engine_model", "engine"], "is missing", hint)


def _check_command(model: ModelSettings, found: ModelProblems) -> None:
    engine = model.engine
    if not engine.command:
        if not found.found.partial:
            hint = 'e.g. command = ["vllm", "serve", "{path}", "--port", "{port}"]'
            found.wrong(["command", "engine"], "is missing", hint)
        return
    words = " ".join((*engine.command, *engine.args, *engine.env.values()))
    if "{port}" not in words and not engine.port:
        hint = "put {port} where the engine expects it, or set the port it always uses as port"
        found.wrong(["command", "args", "env", "port"], "has no {port}", hint)
    if "{path}" in words and not engine.path:
        found.wrong(["path", "command"], "is missing", "the command has {path}")


def check_options(model: ModelSettings, found: ModelProblems, known: OptionKinds | None) -> None:
    """Report options that the model's engine does not have, and values that it does not take."""
    if known is None:
        return
    for name, value in model.engine.options.items():
        if name not in known:
            what = f"the engine {model.engine.kind} has no such option"
            hint = nearest(name, tuple(known)) if known else "it takes none; use args"
            found.wrong([f"options.{name}", "engine"], what, hint)
        elif not _fits(value, known[name]):
            kind = known[name]
            words = kind if isinstance(kind, str) else "one of " + ", ".join(map(quoted, kind))
            shown = quoted(value) if isinstance(value, str) else f"{value}".lower()
            found.wrong([f"options.{name}", "engine"], f"must be {words}, not {shown}")


def _fits(value: object, kind: OptionKind | tuple[str, ...]) -> bool:
    """Return whether an engine takes the value; TOML keeps true apart from 1."""
    if isinstance(kind, tuple):
        return value in kind
    if isinstance(value, bool):
        return kind is OptionKind.FLAG
    if kind is OptionKind.WHOLE:
        return isinstance(value, int)
    return kind is OptionKind.NUMBER and isinstance(value, int | float)


def _check_ladder(model: ModelSettings, found: ModelProblems) -> None:
    ladder = model.replica.park.ladder
    depths = [TIER_DEPTH[tier] for tier in ladder]
    if any(shallow >= deep for shallow, deep in pairwise(depths)):
        order = ", ".join(str(tier) for tier in sorted(set(ladder), key=lambda t: TIER_DEPTH[t]))
        found.wrong(["ladder"], "must go from shallow to deep, each tier once", f"write {order}")
    elif ladder[-1] is not Tier.COLD:
        found.wrong(["ladder"], 'must end in "cold"', "every other tier can fail; cold always works")


def _check_wake(model: ModelSettings, found: ModelProblems) -> None:
    wake = model.replica.wake
    if wake.cap_us < wake.budget_us:
        found.wrong(
            ["wake_cap_s", "wake_budget_s"],
            f"{in_seconds(wake.cap_us)} is less than wake_budget_s, {in_seconds(wake.budget_us)}",
            "a wake goes on after its budget, until the cap",
        )
    if wake.backoff_max_us < wake.backoff_us:
        found.wrong(
            ["wake_backoff_max_s", "wake_backoff_s"],
            f"{in_seconds(wake.backoff_max_us)} is less than wake_backoff_s, {in_seconds(wake.backoff_us)}",
        )
    for phase, limit_us in wake.phase_limits_us.items():
        if limit_us > wake.cap_us:
            found.wrong(
                [f"phase_limits_s.{phase}", "wake_cap_s"],
                f"{in_seconds(limit_us)} is more than wake_cap_s, {in_seconds(wake.cap_us)}",
                "the cap ends the wake first",
            )


def _check_policy(model: ModelSettings, found: ModelProblems) -> None:
    policy, ladder = model.policy, model.replica.park.ladder
    if policy.name != "fixed":
        for key, given in (
            ("idle_s", policy.idle_us is not None),
            ("rungs_s", policy.rungs_us),
            ("allow_short_idle", policy.allow_short_idle),
        ):
            if given:
                hint = f'the policy is {policy.name!r}; write name = "fixed", or leave it out'
                found.wrong([f"policy.{key}", "policy.name"], 'is only for name = "fixed"', hint)
        return
    if policy.idle_us is None and not found.found.partial:
        hint = 'write policy = { name = "fixed", idle_s = 300 }'
        found.wrong(["policy.idle_s", "policy"], "is missing", hint)
    last_us, last = policy.idle_us or 0, "idle_s"
    for tier in ladder:
        if tier not in policy.rungs_us:
            continue
        rung_us = policy.rungs_us[tier]
        if tier is ladder[0]:
            found.wrong([f"policy.rungs_s.{tier}", "ladder"], "is the first tier", "idle_s is its time")
        elif rung_us <= last_us:
            what = f"{in_seconds(rung_us)} is not after {last}, {in_seconds(last_us)}"
            found.wrong([f"policy.rungs_s.{tier}", "policy.idle_s", "ladder"], what)
        last_us, last = rung_us, str(tier)
    for tier in policy.rungs_us:
        if tier not in ladder:
            hint = "the ladder is " + ", ".join(ladder)
            found.wrong([f"policy.rungs_s.{tier}", "ladder"], "is not on the ladder", hint)


def _check_hosted(model: ModelSettings, found: ModelProblems) -> None:
    hosted = model.hosted
    if hosted is None:
        return
    if (hosted.input_nusd_mtok is None) != (hosted.output_nusd_mtok is None):
        given = "input" if hosted.output_nusd_mtok is None else "output"
        other = "output" if given == "input" else "input"
        hint = f"give {other}_usd_mtok as well, or neither"
        found.wrong([f"hosted.{given}_usd_mtok"], "is only half of a price", hint)
    if not hosted.bridge:
        return
    if not hosted.url and not found.found.partial:
        hint = 'e.g. url = "https://api.groq.com/openai/v1"'
        found.wrong(["hosted.url"], "is missing: the bridge leads nowhere", hint)
    if hosted.url.startswith("http:") and not _on_this_machine(hosted.url):
        hint = "use https; http is for this machine alone"
        found.wrong(["hosted.url"], "would send users' text and the API key in the clear", hint)
    if not hosted.key_env and not found.found.partial:
        hint = 'name the variable that holds the API key, e.g. key_env = "GROQ_API_KEY"'
        found.wrong(["hosted.key_env"], "is missing", hint)


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def short_idles(fleet: FleetSettings, costs: Costs, lines: KeyLines = NO_LINES) -> Sequence[Problem]:
    """Return a problem for each fixed idle time that is shorter than the break-even, unless allowed."""
    problems = FileProblems(lines=lines)
    for model in fleet.models:
        policy = model.policy
        if policy.idle_us is None or policy.allow_short_idle:
            continue
        known = costs(model, model.replica.park.ladder[0])
        if known is None:
            continue
        found = idle_problem(policy.idle_us, known, where="", wait_nusd_s=policy.wait_nusd_s)
        if found is not None:
            here = ModelProblems(name=model.name, found=problems)
            here.wrong(["policy.idle_s"], found.what, found.hint)
    return problems.in_order()
