"""The load: closed loops of so many clients for so long, by two ways, kept honest by running them in turn."""

import asyncio
import json
import re
from dataclasses import dataclass, field

from poorwill.core.words import SECOND_US
from poorwill.policies.coldstart.steady_state import Level, Overhead, Shot, level, overhead
from poorwill.telemetry.loadtest.client import BenchError, Caller, Target, get, now_us, round_trip_us, shoot

_WORDS = "snow stone grass wind river light wing song dust night bird winter warm cold sleep wake".split()
_AWAKE_EVERY_S = 1.0
_VLLM_CACHE = re.compile(rb"vllm:cache_config_info\{([^}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLoad:
    """What to send."""

    seconds: float
    """How long each concurrency runs by each way."""
    tokens: int
    prompt_words: int
    most_failures: int = 20

    def prompt(self, number: int) -> str:
        """Return a prompt that differs from every other one in its first words, so that no cache answers
        it."""
        words = [_WORDS[(number * 7 + i * (number % 13 + 1)) % len(_WORDS)] for i in range(self.prompt_words)]
        return " ".join([f"Request {number}:", *words])


@dataclass(slots=True)
class _Run:
    shots: list[Shot] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


async def run_level(target: Target, load: ClientLoad, *, concurrency: int, first: int) -> Level:
    """Run `concurrency` clients in closed loops for the load's time and summarise.

    Requests under way at the end are finished and counted. Raises BenchError after too many failures.
    Cancelled: every connection is closed.
    """
    run = _Run()
    began_us = now_us()
    until_us = began_us + round(load.seconds * SECOND_US)
    async with asyncio.TaskGroup() as tasks:
        for client in range(concurrency):
            start = first + client * 10_000
            tasks.create_task(_client(target, load, run, until_us=until_us, number=start))
    ended_us = max((shot.ended_us for shot in run.shots), default=now_us())
    if not run.shots:
        raise BenchError(f"{target.route}: no request succeeded: {'; '.join(run.failures[:3])}")
    return level(
        target.route, concurrency, run.shots, failed=len(run.failures), took_us=max(1, ended_us - began_us)
    )


async def measure_overhead(
    direct: Target, gateway: Target, load: ClientLoad, *, pairs: int
) -> Overhead | None:
    """Compare one-token requests by both ways, in pairs whose order alternates. Raises BenchError."""
    callers = {target.route: Caller(target=target) for target in (direct, gateway)}
    found: dict[str, list[int]] = {direct.route: [], gateway.route: []}
    try:
        for number in range(-3, pairs):
            turn = (direct, gateway) if number % 2 else (gateway, direct)
            for target in turn:
                took = await round_trip_us(callers[target.route], load.prompt(number + 900_000))
                if number >= 0:  # the first three warm both ways up
                    found[target.route].append(took)
    finally:
        for caller in callers.values():
            caller.close()
    return overhead(found[direct.route], found[gateway.route])


async def stay_awake(gateway: Target, load: ClientLoad) -> None:
    """Ask for a token through the gateway every second, until cancelled.

    Requests sent directly do not count as use; without this the replica could be parked meanwhile.
    """
    number = 0
    while True:
        caller = Caller(target=gateway)
        try:
            await round_trip_us(caller, load.prompt(number + 800_000))
        except BenchError:
            pass  # the measured requests report what is wrong
        finally:
            caller.close()
        number += 1
        await asyncio.sleep(_AWAKE_EVERY_S)


async def kv_capacity(direct: Target) -> dict[str, int]:
    """Return what the engine says of its KV cache: tokens, and blocks if it has them; empty if
    silent."""
    metrics = await get(direct, "/metrics") or b""
    match = _VLLM_CACHE.search(metrics)
    if match is not None:
        labels = dict(re.findall(rb'(\w+)="([^"]*)"', match[1]))
        blocks, size = labels.get(b"num_gpu_blocks", b""), labels.get(b"block_size", b"")
        if blocks.isdigit() and size.isdigit():
            return {"blocks": int(blocks), "block_tokens": int(size), "tokens": int(blocks) * int(size)}
    props = _json(await get(direct, "/props"))
    slots = props.get("total_slots")
    each = props.get("default_generation_settings")
    context = each.get("n_ctx") if isinstance(each, dict) else None
    if isinstance(slots, int) and isinstance(context, int):
        return {"slots": slots, "slot_tokens": context, "tokens": slots * context}
    for path in ("/server_info", "/get_server_info"):  # SGLang, the second before 0.5
        tokens = _json(await get(direct, path)).get("max_total_num_tokens")
        if isinstance(tokens, int):
            return {"tokens": tokens}
    return {}


async def _client(target: Target, load: ClientLoad, run: _Run, *, until_us: int, number: int) -> None:
    caller = Caller(target=target)
    try:
        while now_us() < until_us:
            number += 1
            try:
                run.shots.append(await shoot(caller, load.prompt(number), tokens=load.tokens))
            except (BenchError, TimeoutError) as error:
                run.failures.append(str(error))
                if len(run.failures) >= load.most_failures:
                    raise BenchError(f"{target.route}: {error}") from error
    finally:
        caller.close()


def _json(body: bytes | None) -> dict[str, object]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
