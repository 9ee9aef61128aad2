"""Has a model that is given by name on disk before its engine starts: downloads it in a child process."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from msgspec import Struct

from poorwill.compose.hub.on_disk import path_of, wants_gguf
from poorwill.config.values.hub_names import HubName, hub_name
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.extras import install_extra
from poorwill.core.format import size
from poorwill.core.launch import PhaseMark
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import Report
from poorwill.core.settings import ModelSettings
from poorwill.core.words import Phase
from poorwill.engines.weights.files import hub_cache
from poorwill.fleet.unit import Fetch

EXTRA = install_extra("hub")
_MOST_LINE = 2**16
Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes to be downloaded."""


class PulledModel(Struct, frozen=True, kw_only=True):
    """A model that is on disk now."""

    name: str
    path: str


class PullDocument(Struct, frozen=True, kw_only=True):
    """The models that are on disk now."""

    models: tuple[PulledModel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Downloads models of the hub."""

    env: Mapping[str, str]

    async def fetch(self, name: HubName, engine: str, *, progress: Progress = lambda done, need: None) -> str:
        """Return the path of the model, downloaded if need be, its revision looked up anew.

        Raises OperatorFault if it cannot be had. Cancelled: the child process is ended; what it has
        downloaded is kept, and the next attempt goes on there.
        """
        self._refuse(name)
        words = (name.repo, name.revision, name.which, "1" if wants_gguf(name, engine) else "")
        cache = hub_cache(self.env)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "poorwill.remote.hub.program", *words, cache),
            env=dict(self.env),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=_MOST_LINE,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                told = tasks.create_task(_follow(process, progress))
                said = tasks.create_task(_last_words(process))
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        facts = told.result()
        if status == 0 and isinstance(facts.get("path"), str):
            return str(facts["path"])
        what = facts.get("fault") or said.result() or f"the download ended with status {status}"
        code = ErrorCode.NO_CAPACITY if facts.get("full") else ErrorCode.WAKE_FAILED
        raise OperatorFault(code, f"{name}: {what}", hint=str(facts.get("hint", "")))

    def _refuse(self, name: HubName) -> None:
        if self.env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            hint = "unset HF_HUB_OFFLINE, or copy the model into the cache: poorwill models shows it"
            raise OperatorFault(ErrorCode.WAKE_FAILED, f"{name} is not on disk, and offline", hint=hint)
        if find_spec("huggingface_hub") is None:
            raise OperatorFault(ErrorCode.CONFIG_INVALID, f"{name} needs huggingface_hub", hint=EXTRA)


def wanted(asked: Sequence[str], models: Sequence[ModelSettings]) -> Sequence[tuple[HubName, str]]:
    """Return the models to download, with the engine of each: those asked for, or all given by name.

    Raises OperatorFault for one that is neither a name of the hub nor a model of the fleet that has one.
    """
    known = {str(model.name): model.engine for model in models}
    engines = {engine.path: engine.kind for engine in known.values()}
    if not asked:
        named = [(hub_name(path), kind) for path, kind in engines.items()]
        return [(name, kind) for name, kind in named if name is not None]
    found = []
    for text in asked:
        name = hub_name(known[text].path if text in known else text)
        if name is None:
            what = f"{text} is not given by name" if text in known else f"there is no model {text!r}"
            hint = 'path = "hf:ORG/NAME" names one of the hub'
            raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=hint)
        usual = "llama.cpp" if name.which or "gguf" in name.repo.lower() else "vllm"
        found.append((name, known[text].kind if text in known else engines.get(text, usual)))
    return found


def downloads(
    models: Callable[[], Sequence[ModelSettings]], *, env: Mapping[str, str]
) -> Callable[[str], tuple[str, Callable[[Progress], Awaitable[str]]]]:
    """Return what finds the full name and the download of what an operator calls by a name; see `wanted`."""

    def find(asked: str) -> tuple[str, Callable[[Progress], Awaitable[str]]]:
        [(name, engine)] = wanted([asked], models())
        return str(name), lambda progress: Fetcher(env=env).fetch(name, engine, progress=progress)

    return find


def fetch_first(model: ModelSettings, *, env: Mapping[str, str], clock: Clock) -> Fetch | None:
    """Return what has a model's files on disk before a start; None if the model is not given by name."""
    name = hub_name(model.engine.path)
    if name is None:
        return None

    async def fetch(report: Report) -> None:
        """Download what is missing, as the phase `download`. Raises and is cancelled as `Fetcher.fetch`."""
        if await asyncio.to_thread(path_of, name, model.engine.kind, env):
            return
        began_us, told = clock.now_us(), False

        def progress(done: int, need: int) -> None:
            nonlocal told
            if not told:
                told, detail = True, f"{name}: {size(need)}"
                report(PhaseMark(phase=Phase.DOWNLOAD, at_us=began_us, bytes_read=need, detail=detail))

        await Fetcher(env=env).fetch(name, model.engine.kind, progress=progress)

    return fetch


async def _follow(process: Process, progress: Progress) -> dict[str, object]:
    """Return what the child told last of each fact."""
    facts: dict[str, object] = {}
    assert process.stdout is not None
    async for line in process.stdout:
        try:
            facts |= json.loads(line)
        except ValueError:
            continue
        done, need = facts.get("done", 0), facts.get("need", 0)
        if isinstance(done, int) and isinstance(need, int) and need:
            progress(done, need)
    return facts


async def _last_words(process: Process) -> str:
    assert process.stderr is not None
    lines = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
