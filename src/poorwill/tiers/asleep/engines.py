"""How each engine is put to sleep and woken: small clients over its own HTTP routes.

Each knows its engine's traps, so that the driver need not. They raise DriverError with what the engine said.
The routes: vLLM's docs/features/sleep_mode.md, SGLang's managers/scheduler and http_server, llama.cpp's
tools/server/README.md, Ollama's docs/api.md.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from poorwill.core.launch import Launch, Running
from poorwill.core.ports.driver import DriverError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_DEVELOPMENT = "VLLM_SERVER_DEV_MODE"
_FIRST_DELAY_S = 0.01
_LONGEST_DELAY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """HTTP calls to one engine. Each has a connection of its own: one left open keeps a process from being
    frozen later. The caller's deadline bounds them."""

    host: str
    port: int

    @classmethod
    def to(cls, running: Running) -> "Calls":
        """Return the calls to a running engine."""
        return cls(host=running.host, port=running.port)

    async def post(self, path: str, body: Mapping[str, object] | None = None, **query: str | int) -> Any:
        """POST and return the JSON answer, None where there is none. Raises DriverError unless 2xx."""
        return await self._call("POST", path, body, query)

    async def get(self, path: str) -> Any:
        """GET and return the JSON answer. Raises DriverError unless 2xx."""
        return await self._call("GET", path, None, {})

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        query: Mapping[str, str | int],
    ) -> Any:
        host = f"[{self.host}]" if ":" in self.host else self.host
        try:
            async with httpx2.AsyncClient(
                base_url=f"http://{host}:{self.port}",
                timeout=None,
                trust_env=False,
                verify=False,
                headers={"connection": "close"},
            ) as client:
                answer = await client.request(method, path, json=body, params=dict(query))
        except httpx2.HTTPError as error:
            why = f"{type(error).__name__} {error}".strip()
            raise DriverError(f"no answer to {path}: {why}") from error
        if not 200 <= answer.status_code < 300:
            raise DriverError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        try:
            return answer.json() if answer.content else None
        except ValueError:
            return answer.text


class EngineSleep(Protocol):
    """One engine's sleep. The replica has no requests in flight, and the caller has a deadline."""

    def refusal(self, launch: Launch) -> str:
        """Return why this launch must not be put to sleep, or empty."""
        ...

    async def sleep(self, calls: Calls, launch: Launch) -> None:
        """Return when the engine sleeps, by its own word where it gives one. Raises DriverError."""
        ...

    async def wake(self, calls: Calls, launch: Launch) -> None:
        """Return when the engine is awake with its weights in place. Raises DriverError.

        Also undoes a sleep that did not come to its end.
        """
        ...


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

    async def sleep(self, calls: Calls, launch: Launch) -> None:
        """Sleep; `wait` lets a stray request end, where the default would abort it."""
        await calls.post("/sleep", level=self.level, mode="wait")
        await self._until(calls, sleeping=True)

    async def wake(self, calls: Calls, launch: Launch) -> None:
        """Wake; from level 2 the weights are read again before the KV cache takes the memory."""
        if self.level < 2:
            await calls.post("/wake_up")
        else:
            await calls.post("/wake_up", tags="weights")
            await calls.post("/collective_rpc", {"method": "reload_weights"})
            await calls.post("/wake_up", tags="kv_cache")
            await calls.post("/reset_prefix_cache")
        await self._until(calls, sleeping=False)

    async def _until(self, calls: Calls, *, sleeping: bool) -> None:
        delay_s = _FIRST_DELAY_S
        while (await calls.get("/is_sleeping"))["is_sleeping"] is not sleeping:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class SglangSleep:
    """SGLang's memory release. It has no word for whether it sleeps; its answers are taken for it.

    A release while a request runs ends the engine, so generation is paused first.
    """

    def refusal(self, launch: Launch) -> str:
        """Refuse an engine started without the memory saver."""
        if "--enable-memory-saver" in launch.argv:
            return ""
        return "SGLang releases its memory only when started with --enable-memory-saver"

    async def sleep(self, calls: Calls, launch: Launch) -> None:
        """Pause, then release weights, KV cache and graphs."""
        await calls.post("/pause_generation", {"mode": "abort"})
        await calls.post("/release_memory_occupation", {})

    async def wake(self, calls: Calls, launch: Launch) -> None:
        """Take the memory again, read the weights where no copy was kept, go on."""
        await calls.post("/resume_memory_occupation", {})
        if "--enable-weights-cpu-backup" not in launch.argv:
            answer = await calls.post("/update_weights_from_disk", {"model_path": _model(launch)})
            if isinstance(answer, dict) and answer.get("success") is False:
                raise DriverError(f"SGLang did not reload its weights: {answer.get('message')}")
        await calls.post("/continue_generation", {})


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

    async def sleep(self, calls: Calls, launch: Launch) -> None:
        """Wait until it says that it sleeps; /props neither wakes it nor counts as use."""
        delay_s = _FIRST_DELAY_S
        while not (await calls.get("/props")).get("is_sleeping"):
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def wake(self, calls: Calls, launch: Launch) -> None:
        """Give it the smallest task there is; the answer comes when the model is loaded again."""
        await calls.post("/completion", {"prompt": "a", "n_predict": 1, "cache_prompt": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaSleep:
    """Ollama's keep_alive: 0 unloads the model, -1 loads it and keeps it."""

    def refusal(self, launch: Launch) -> str:
        """Refuse a launch that does not say which model."""
        return "" if launch.engine_model else "Ollama needs engine_model to know what to unload"

    async def sleep(self, calls: Calls, launch: Launch) -> None:
        """Unload, and wait until it is listed no more: the runner ends after the answer."""
        await calls.post("/api/generate", {"model": launch.engine_model, "keep_alive": 0})
        delay_s = _FIRST_DELAY_S
        while await self._loaded(calls, launch):
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def wake(self, calls: Calls, launch: Launch) -> None:
        """Load; the answer comes when it is loaded."""
        await calls.post("/api/generate", {"model": launch.engine_model, "keep_alive": -1})
        if not await self._loaded(calls, launch):
            raise DriverError(f"Ollama says it loaded {launch.engine_model} but does not list it")

    async def _loaded(self, calls: Calls, launch: Launch) -> bool:
        listed = (await calls.get("/api/ps")).get("models") or []
        return launch.engine_model in {entry.get("name") for entry in listed}


async def wake_engine(
    sleeps: Mapping[str, EngineSleep], running: Running, launch: Launch, *, limit_s: float
) -> None:
    """Wake the engine of a process that was frozen or suspended in its sleep. Raises DriverError."""
    sleep = sleeps.get(launch.sleep or "")
    if sleep is None:
        raise DriverError(f"nobody knows how to wake the engine of replica {launch.replica}")
    try:
        async with asyncio.timeout(limit_s):
            await sleep.wake(Calls.to(running), launch)
    except TimeoutError as error:
        raise DriverError(
            f"the engine of replica {launch.replica} did not wake within {limit_s:g} s"
        ) from error


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
