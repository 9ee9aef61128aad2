"""The kinds of engines by name, and `make_engine`, which builds the one a model is configured with."""

import difflib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from poorwill.core.ports.clock import Clock
from poorwill.core.problems import ConfigFault, Problem
from poorwill.core.settings import EngineSettings, ModelSettings, OptionKinds
from poorwill.engines.dialects.llamacpp import read_llamacpp
from poorwill.engines.dialects.log_facts import Dialect
from poorwill.engines.dialects.others import read_any, read_ollama, read_transformers
from poorwill.engines.dialects.sglang import read_sglang
from poorwill.engines.dialects.vllm import read_vllm
from poorwill.engines.recipe import Prepare
from poorwill.engines.recipes import llamacpp, toy
from poorwill.engines.recipes.command import (
    command_recipe,
    ollama_recipe,
    sglang_recipe,
    transformers_recipe,
    vllm_recipe,
)
from poorwill.engines.recipes.rented import rented_recipe
from poorwill.engines.served import ServedEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """What makes one kind: how it is started, how its log reads, which options it knows."""

    prepare: Prepare
    dialect: Dialect
    options: OptionKinds | None = None
    """None: every option is passed on as a flag."""
    asks: Mapping[str, object] = field(default_factory=dict)
    """Fields added to a probe."""
    vitals: Sequence[str] = ("/metrics",)
    """Paths whose answers change while it works on a request, if it serves them."""
    answers_busy: bool = True
    """Whether its health answers however long it computes: it has threads or a process for that."""
    silent_imports: bool = True
    program: str = ""
    """What has to be installed to start it; empty: nothing, or no single program."""
    tells_usage: bool = False
    """Whether to ask it for a stream's usage. llama.cpp tells as much in the `timings` of its last chunk."""
    sleeps_with: str | None = None
    """The option that makes it able to sleep, for people; empty: it always is; None: it never is."""


ENGINE_KINDS: Mapping[str, EngineKind] = MappingProxyType(
    {
        "llama.cpp": EngineKind(
            prepare=llamacpp.llamacpp_recipe,
            dialect=read_llamacpp,
            options=llamacpp.OPTIONS,
            asks={"cache_prompt": False},  # the same arithmetic before a park and after a wake
            vitals=("/slots", "/metrics"),
            silent_imports=False,
            sleeps_with="sleep_idle_seconds = 2",
        ),
        "command": EngineKind(
            prepare=command_recipe, dialect=read_any, options=MappingProxyType({}), answers_busy=False
        ),
        "toy": EngineKind(
            prepare=toy.toy_recipe,
            dialect=read_any,
            options=toy.OPTIONS,
            silent_imports=False,
            tells_usage=True,
        ),
        "transformers": EngineKind(
            prepare=transformers_recipe,
            dialect=read_transformers,
            program="transformers",
            answers_busy=False,
        ),
        "vllm": EngineKind(
            prepare=vllm_recipe,
            dialect=read_vllm,
            program="vllm",
            tells_usage=True,
            sleeps_with="sleep = true",
        ),
        "sglang": EngineKind(
            prepare=sglang_recipe, dialect=read_sglang, tells_usage=True, sleeps_with="sleep = true"
        ),
        "ollama": EngineKind(
            prepare=ollama_recipe,
            dialect=read_ollama,
            program="ollama",
            options=MappingProxyType({}),
            tells_usage=True,
            sleeps_with="",
        ),
    }
)


def make_engine(
    settings: ModelSettings,
    *,
    directory: str,
    clock: Clock,
    env: Mapping[str, str],
    located: Callable[[ModelSettings], ModelSettings] = lambda settings: settings,
) -> ServedEngine:
    """Return the model's engine. `directory` is the fleet's; `env` poorwill's own environment.

    `located` is asked before each start where the files are now of a model that is given by name.

    Raises ConfigFault for an unknown kind or option.
    """
    kind = ENGINE_KINDS.get(settings.engine.kind)
    if kind is None:
        where = f"{settings.name}.engine.kind"
        what = f"no engine {settings.engine.kind!r}"
        raise ConfigFault([Problem(where=where, what=what, hint="one of " + ", ".join(ENGINE_KINDS))])
    problems = [
        _unknown_option(settings, name, kind.options)
        for name in settings.engine.options
        if kind.options is not None and name not in kind.options
    ]
    if problems:
        raise ConfigFault(problems)
    prepare = kind.prepare if settings.away is None else rented_recipe
    return ServedEngine(
        settings=settings,
        directory=directory,
        clock=clock,
        env=env,
        prepare=lambda model, context: prepare(located(model), context),
        dialect=kind.dialect,
        asks=kind.asks,
        vitals=kind.vitals,
        silent_imports=kind.silent_imports,
    )


def missing_program(engine: EngineSettings, env: Mapping[str, str]) -> str | None:
    """Return the name of the engine's program if it cannot be found, else None.

    `env` is poorwill's own environment. A program of one's own (`command`) is looked at when a file is read.
    """
    kind = ENGINE_KINDS.get(engine.kind)
    if kind is None or engine.command or not kind.program:
        return None
    search = engine.env.get("PATH", env.get("PATH", os.defpath))
    return None if shutil.which(kind.program, path=search) else kind.program


def cannot_sleep(engine: EngineSettings) -> tuple[str, str] | None:
    """Return why an engine as configured has no sleep of its own, and what would mend that; None: it has."""
    kind = ENGINE_KINDS.get(engine.kind)
    if kind is None or kind.sleeps_with is None:
        return f"the engine {engine.kind} has no sleep of its own", ""
    option = kind.sleeps_with.partition(" ")[0]
    if option and not engine.options.get(option):
        mend = f"options = {{ {kind.sleeps_with} }}"
        return f"the engine {engine.kind} sleeps only if an option says so", mend
    return None


def _unknown_option(settings: ModelSettings, name: str, known: OptionKinds | None) -> Problem:
    near = difflib.get_close_matches(name, known or (), n=1)
    hint = f"did you mean {near[0]!r}?" if near else "known: " + (", ".join(known or ()) or "none")
    return Problem(
        where=f"{settings.name}.engine.options.{name}",
        what=f"the engine {settings.engine.kind} has no such option",
        hint=hint,
    )
