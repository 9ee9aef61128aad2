"""What the keys of engines must satisfy that leave something outside of their processes: a container, say."""

from collections.abc import Iterator

from poorwill.config.problems import ModelProblems
from poorwill.core.problems import Problem
from poorwill.core.settings import ModelSettings
from poorwill.core.words import Tier
from poorwill.hosts.containers.run_line import RunLine, run_line

_IMAGES = (Tier.FROZEN, Tier.SUSPENDED)


def check_outside(model: ModelSettings, found: ModelProblems) -> None:
    """Report run lines that poorwill could not follow or end, and tiers that would keep a client only."""
    engine, line = model.engine, _line(model)
    if engine.stop_command and engine.kind in ("llama.cpp", "toy"):
        found.wrong(["stop_command", "engine"], f"is not for the engine {engine.kind}", "leave it out")
    wrong = [tier for tier in model.replica.park.ladder if tier in _IMAGES]
    if wrong and leaves_something(model):
        what = f"{wrong[0]} would keep the process that poorwill starts, and not what runs outside of it"
        key = "command" if line else "stop_command"
        found.wrong(["ladder", key], what, 'write ladder = ["cold"]; asleep works if the engine sleeps')
    if line is None:
        return
    if line.has("--detach", "--detach=true"):
        found.wrong(["command"], "detaches: its end and its log could not be followed", "leave out -d")
    if line.has("--tty", "--tty=true"):
        found.wrong(["command"], "asks for a terminal, which there is not", "leave out -t")
    if line.has("--name") and not engine.stop_command:
        hint = "leave it out, or set stop_command"
        found.wrong(["command"], "has a --name: poorwill names its containers, to end no other", hint)


def leaves_something(model: ModelSettings) -> bool:
    """Return whether a model's engine is not, or not only, in the processes that poorwill starts."""
    return _line(model) is not None or bool(model.engine.stop_command)


def outside_advice(model: ModelSettings) -> Iterator[Problem]:
    """Warn of a container whose port everybody reaches, past the gateway and its keys."""
    line = _line(model)
    for published in line.values("-p", "--publish") if line else ():
        if published.count(":") < 2 or published.startswith(("0.0.0.0:", "[::]:")):
            what = f"{published} is published on every address of this machine, past the gateway and its keys"
            inside = published.rpartition(":")[2]
            hint = f'write "127.0.0.1:{{port}}:{inside}"'
            yield Problem(where=f"models.{model.name}.command", what=what, hint=hint)


def _line(model: ModelSettings) -> RunLine | None:
    engine = model.engine
    return run_line((*engine.command, *engine.args, *([] if engine.kind == "command" else ["image"])))
