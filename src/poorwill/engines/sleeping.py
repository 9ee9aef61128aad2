"""How each engine is put to sleep and woken: small clients over its own HTTP routes.

Each handles its engine's traps, so that the drivers need not. DriverError carries what the engine said.
The routes: vLLM's docs/features/sleep_mode.md, SGLang's managers/scheduler and http_server, llama.cpp's
tools/server/README.md, Ollama's docs/api.md.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from poorwill.core.launch import Launch, Running
from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.engine_sleep import EngineSleep
from poorwill.engines.asking import engine_client, why_unanswered
from poorwill.remote.http_answers import bounded_answer

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_DEVELOPMENT = "VLLM_SERVER_DEV_MODE"
_FIRST_DELAY_S = 0.01
_LONGEST_DELAY_S = 0.25


async def call(
    running: Running,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    method: str = "POST",
    **query: str | int,
) -> Any:
    """Call an engine and return its JSON answer, None if it is empty. The caller's deadline bounds it.

    Raises DriverError unless the status is 2xx.
    """
    try:
        async with engine_client(running.host, running.port, timeout_s=None) as client:
            answer = await bounded_answer(client, method, path, json=body, params=query)
    except httpx2.HTTPError as error:
        raise DriverError(why_unanswered(path, error)) from error
    if not answer.is_success:
        raise DriverError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
    try:
        return answer.json() if answer.content else None
    except ValueError:
        return answer.text


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll until the condition holds; the caller's deadline bounds it."""
    delay_s = _FIRST_DELAY_S
    while not await condition():
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, _LONGEST_DELAY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSleep:
    """vLLM's sleep mode. Level 1 keeps the weights in host memory, level 2 drops them and reloads.

    Its routes are open to whoever reaches the port: --api-key guards /v1 only. /health says nothing.
    """

    level: int = 1

    def refusal(self, launch: Launch) -> str:
        """Refuse an engine without the routes, and any address but loopback: whoever reaches them could put
        the engine to sleep or run code in it."""
        if launch.env.get(_DEVELOPMENT) != "1" or "--enable-sleep-mode" not in launch.argv:
            return f"vLLM sleeps only when started with --enable-sleep-mode and {_DEVELOPMENT}=1"
        if launch.host not in LOOPBACK:
            return (
                f"vLLM's sleep routes (development mode) are open to whoever reaches {launch.host}; "
                "bind it to 127.0.0.1"
            )
        return ""

    async def sleep(self, running: Running, launch: Launch) -> None:
        """Sleep; `wait` lets a stray request end, where the default would abort it."""
        await call(running, "/sleep", level=self.level, mode="wait")
        await _until(lambda: self._is(running, sleeping=True))

    async def wake(self, running: Running, launch: Launch) -> None:
        """Wake; from level 2 the weights are read again before the KV cache takes the memory."""
        if self.level < 2:
            await call(running, "/wake_up")
        else:
            await call(running, "/wake_up", tags="weights")
            await call(running, "/collective_rpc", {"method": "reload_weights"})
            await call(running, "/wake_up", tags="kv_cache")
            await call(running, "/reset_prefix_cache")
        await _until(lambda: self._is(running, sleeping=False))

    async def _is(self, running: Running, *, sleeping: bool) -> bool:
        said = await call(running, "/is_sleeping", method="GET")
        return bool(said["is_sleeping"]) is sleeping


@dataclass(frozen=True, slots=True, kw_only=True)
class SglangSleep:
    """SGLang's memory release. It has no word for whether it sleeps; a 2xx answer to each call has to do.

    A release while a request runs ends the engine, so generation is paused first.
    """

    def refusal(self, launch: Launch) -> str:
        """Refuse an engine started without the memory saver."""
        if "--enable-memory-saver" in launch.argv:
            return ""
        return "SGLang releases its memory only when started with --enable-memory-saver"

    async def sleep(self, running: Running, launch: Launch) -> None:
        """Pause, then release weights, KV cache and graphs."""
        await call(running, "/pause_generation", {"mode": "abort"})
        await call(running, "/release_memory_occupation", {})

    async def wake(self, running: Running, launch: Launch) -> None:
        """Take the memory again, read the weights if no copy was kept, go on."""
        await call(running, "/resume_memory_occupation", {})
        if "--enable-weights-cpu-backup" not in launch.argv:
            answer = await call(running, "/update_weights_from_disk", {"model_path": _model(launch)})
            if isinstance(answer, dict) and answer.get("success") is False:
                raise DriverError(f"SGLang did not reload its weights: {answer.get('message')}")
        await call(running, "/continue_generation", {})


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppSleep:
    """llama.cpp's own idle sleep (--sleep-idle-seconds). It cannot be told to sleep, only waited for.

    Any task wakes it; a model file that has gone meanwhile aborts the process.
    """

    def refusal(self, launch: Launch) -> str:
        """Refuse an engine that was not told when to sleep."""
        if "--sleep-idle-seconds" in launch.argv:
            return ""
        return "llama.cpp sleeps only when started with --sleep-idle-seconds"

    async def sleep(self, running: Running, launch: Launch) -> None:
        """Wait until it says that it sleeps; /props neither wakes it nor counts as use."""

        async def sleeps() -> bool:
            return bool((await call(running, "/props", method="GET")).get("is_sleeping"))

        await _until(sleeps)

    async def wake(self, running: Running, launch: Launch) -> None:
        """Give it the smallest task there is; the answer comes when the model is loaded again."""
        await call(running, "/completion", {"prompt": "a", "n_predict": 1, "cache_prompt": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaSleep:
    """Ollama's keep_alive: 0 unloads the model, -1 loads it and keeps it."""

    def refusal(self, launch: Launch) -> str:
        """Refuse a launch that does not say which model."""
        return "" if launch.engine_model else "Ollama needs engine_model to know what to unload"

    async def sleep(self, running: Running, launch: Launch) -> None:
        """Unload, and wait until it is listed no more: the runner ends after the answer."""
        await call(running, "/api/generate", {"model": launch.engine_model, "keep_alive": 0})

        async def unloaded() -> bool:
            return not await self._loaded(running, launch)

        await _until(unloaded)

    async def wake(self, running: Running, launch: Launch) -> None:
        """Load; the answer comes when it is loaded."""
        await call(running, "/api/generate", {"model": launch.engine_model, "keep_alive": -1})
        if not await self._loaded(running, launch):
            raise DriverError(f"Ollama says it loaded {launch.engine_model} but does not list it")

    async def _loaded(self, running: Running, launch: Launch) -> bool:
        listed = (await call(running, "/api/ps", method="GET")).get("models") or []
        return launch.engine_model in {entry.get("name") for entry in listed}


FORGETFUL_SLEEPS = ("vllm-2", "llama.cpp", "ollama")
"""The sleeps that drop the weights: a wake reads them again."""


def engine_sleeps() -> Mapping[str, EngineSleep]:
    """Return the sleep of every kind that `Launch.sleep` may name."""
    return {
        "vllm": VllmSleep(level=1),
        "vllm-2": VllmSleep(level=2),
        "sglang": SglangSleep(),
        "llama.cpp": LlamaCppSleep(),
        "ollama": OllamaSleep(),
    }


def _model(launch: Launch) -> str:
    words = iter(launch.argv)
    for word in words:
        if word == "--model-path":
            return next(words, "")
    return launch.weights_path or ""
