"""What the keys of one model must satisfy together.

A rule names the keys it is about; if one of them was reported already, it says nothing.
"""

from collections.abc import Mapping
from itertools import pairwise

from poorwill.config.problems import ModelProblems
from poorwill.config.rules.outside import check_outside
from poorwill.config.values.addresses import in_the_clear
from poorwill.config.values.hub_names import hub_name
from poorwill.config.values.scalars import in_seconds, nearest, quoted
from poorwill.core.settings import LLAMACPP_SLOTS, EngineSettings, ModelSettings, OptionKind, OptionKinds
from poorwill.core.words import TIER_DEPTH, Tier

EngineOptions = Mapping[str, OptionKinds | None]
"""The options that each kind of engine knows; None: every option is passed on as a flag."""


def check_model(model: ModelSettings, found: ModelProblems) -> None:
    """Report what is wrong with one model."""
    _check_engine(model, found)
    check_outside(model, found)
    _check_ladder(model, found)
    _check_wake(model, found)
    _check_policy(model, found)
    _check_hosted(model, found)
    _check_replicas(model, found)


def _check_engine(model: ModelSettings, found: ModelProblems) -> None:
    engine = model.engine
    if model.away is not None:  # nothing is started here
        pass
    elif engine.kind == "command":
        _check_command(model, found)
    elif engine.command and engine.kind in ("llama.cpp", "toy"):
        hint = 'use args to add arguments, or engine = "command"'
        found.wrong(["command", "engine"], f"is not for the engine {engine.kind}", hint)
    if engine.cwd and engine.kind != "command":
        found.wrong(["cwd", "engine"], f"is not for the engine {engine.kind}", 'it is for engine = "command"')
    pathless = not engine.path and model.away is None
    if engine.kind == "llama.cpp" and pathless:
        found.missing(["path", "engine"], "name the model's GGUF file")
    elif engine.kind in ("vllm", "sglang", "transformers") and pathless:
        found.missing(["path", "engine"], "name the model's directory, or a model id of the hub")
    elif engine.kind == "ollama" and not engine.engine_model:
        hint = 'e.g. engine_model = "qwen3:0.6b", as ollama list shows it'
        found.missing(["engine_model", "engine"], hint)


def _check_command(model: ModelSettings, found: ModelProblems) -> None:
    engine = model.engine
    if not engine.command:
        hint = 'e.g. command = ["vllm", "serve", "{path}", "--port", "{port}"]'
        found.missing(["command", "engine"], hint)
        return
    words = " ".join((*engine.command, *engine.args, *engine.env.values()))
    if "{port}" not in words and not engine.port:
        hint = "put {port} into its arguments, or set port to the one it always uses"
        found.wrong(["command", "args", "env", "port"], "has no {port}", hint)
    if "{path}" in words and not engine.path:
        found.wrong(["path", "command"], "is missing", "the command has {path}")


def usual_concurrency(engine: EngineSettings) -> int:
    """Return how many requests an engine works on at once, for `max_concurrency`; 0 if it has no such limit.

    What waits does so in poorwill's own queue then, which is fair and visible, and not inside the engine.
    docs/reliability.md says what each does, and where that is written.
    """
    options = engine.options
    match engine.kind:
        case "llama.cpp":
            most = options.get("parallel", LLAMACPP_SLOTS)
        case "vllm":
            most = options.get("max_num_seqs", 0)
        case "sglang":
            most = options.get("max_running_requests", 0)
        case "transformers":
            most = 0 if options.get("continuous_batching") else 1
        case "ollama":
            text = engine.env.get("OLLAMA_NUM_PARALLEL", "1")
            most = int(text) if text.isdecimal() else 1
        case _:
            most = 0
    return most if isinstance(most, int) and most > 0 else 0


def check_options(model: ModelSettings, found: ModelProblems, known: OptionKinds | None) -> None:
    """Report options that the model's engine does not know, and values that it does not accept."""
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
    """Return whether an engine accepts the value; TOML distinguishes true from 1."""
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
    if Tier.SUSPENDED in ladder and hub_name(model.engine.path):
        hint = "poorwill models shows where it lies on disk"
        found.wrong(["ladder", "path"], "a guest holds a file, not a model by name", hint)


def _check_wake(model: ModelSettings, found: ModelProblems) -> None:
    wake = model.replica.wake
    if wake.cap_us < wake.budget_us:
        what = f"{in_seconds(wake.cap_us)} is less than wake_budget_s, {in_seconds(wake.budget_us)}"
        hint = "a wake goes on after its budget, until the cap"
        found.wrong(["wake_cap_s", "wake_budget_s"], what, hint)
    if wake.backoff_max_us < wake.backoff_us:
        what = f"{in_seconds(wake.backoff_max_us)} is less than wake_backoff_s, {in_seconds(wake.backoff_us)}"
        found.wrong(["wake_backoff_max_s", "wake_backoff_s"], what)
    for phase, limit_us in wake.phase_limits_us.items():
        if limit_us > wake.cap_us:
            what = f"{in_seconds(limit_us)} is more than wake_cap_s, {in_seconds(wake.cap_us)}"
            found.wrong([f"phase_limits_s.{phase}", "wake_cap_s"], what, "the cap ends the wake first")


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
    if policy.idle_us is None:
        found.missing(["policy.idle_s", "policy"], 'write policy = { name = "fixed", idle_s = 300 }')
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
    if not hosted.url:
        hint = 'e.g. url = "https://api.groq.com/openai/v1"'
        found.missing(["hosted.url"], hint, "is missing: the bridge leads nowhere")
    if in_the_clear(hosted.url):
        hint = "use https; http is for this machine alone"
        found.wrong(["hosted.url"], "would send users' text and the API key in the clear", hint)
    if not hosted.key_env:
        hint = 'name the variable that holds the API key, e.g. key_env = "GROQ_API_KEY"'
        found.missing(["hosted.key_env"], hint)


def _check_replicas(model: ModelSettings, found: ModelProblems) -> None:
    replicas = model.replicas
    if replicas.least_ready > replicas.most:
        found.wrong(["replicas.least_ready"], f"is more than there are: {replicas.most}")
    for number, window in enumerate(model.floor.windows):
        if window.floor > replicas.most:
            what = f"window {number + 1} wants {window.floor} ready; there are {replicas.most}"
            found.wrong(["floor"], what, "raise replicas, or lower the window's floor")
    if replicas.most == 1:
        return
    if not model.replica.limit(helped=True):
        hint = "say how many requests one replica takes, e.g. max_concurrency = 16"
        found.missing(["max_concurrency", "replicas"], hint, "is missing: one replica would take everything")
    for key, given in (("port", model.engine.port), ("cloud", model.cloud), ("url", model.elsewhere.engine)):
        if given:
            found.wrong([key, "replicas"], "is of one replica only", "leave it out, or have one replica")
