"""The demo's client: replays a slice of a real usage trace as any OpenAI client would."""

import asyncio
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from time import perf_counter
from types import MappingProxyType

from poorwill.config.manual import document

FROZEN, COLD = "demo", "demo-cold"
"""The models of the demo's fleet, by how they are parked."""

MAX_TOKENS = 24

TRACE_S = 7_200
"""The length of the bundled slice."""

_PROMPT_CHARACTERS = 4_000
"""Of a whole demo's fixed prompt: about 2,500 tokens of a small model, which it reads for some seconds."""

_LESS: Mapping[tuple[str, str], float] = MappingProxyType(
    {("llama.cpp", "5m"): 1, ("llama.cpp", "100m"): 0.1}
)
"""The part of it that an engine gets. transformers keeps no prompt from one request to the next."""


def fixed_prompt(*, engine: str, size: str, seconds: float) -> str:
    """Return what every request begins with, as a support bot's do: the beginning of poorwill's own manual.

    A short demo has a short one: an engine must be able to read it several times.
    """
    share = _LESS.get((engine, size), 0) * min(seconds / 60, 1)
    return document()[: round(_PROMPT_CHARACTERS * share)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of the slice, on the demo's compressed time."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the client saw of one request."""

    model: str
    number: int
    at_s: float
    first_token_s: float
    total_s: float
    error: str = ""


def bundled_slice(*, seconds: float) -> list[Arrival]:
    """Return the bundled slice of real traffic, its two hours compressed to `seconds`."""
    text = files("poorwill.compose.demo").joinpath("demo_trace.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    scale = seconds / TRACE_S
    return [
        Arrival(
            at_s=float(row["arrival_s"]) * scale,
            prompt_tokens=int(row["prompt_tokens"]),
            output_tokens=int(row["output_tokens"]),
        )
        for row in rows
    ]


async def replay(
    arrivals: Sequence[Arrival],
    *,
    base_url: str,
    model: str,
    prompt: str = "",
    tell: Callable[[Answer], None],
    first_number: int = 1,
) -> list[Answer]:
    """Send every request at its time, the first at once, and read its stream to the end.

    Returns what was seen, in order.

    Each arrival is a task of its own, so that a held request delays no other. A failed request is an
    answer with `error` set. Cancelled: every request is abandoned.
    """
    import httpx2  # slow to import; most verbs do without

    began, starts_s = perf_counter(), min((arrival.at_s for arrival in arrivals), default=0.0)
    answers: list[Answer] = []
    async with httpx2.AsyncClient(base_url=base_url, timeout=120, trust_env=False) as client:

        async def one(number: int, arrival: Arrival) -> None:
            await asyncio.sleep(max(arrival.at_s - starts_s - (perf_counter() - began), 0))
            sent = perf_counter()
            first: float | None = None
            error = ""
            try:
                body = _request(model, prompt, number, arrival)
                async with client.stream("POST", "/chat/completions", json=body) as answer:
                    async for line in answer.aiter_lines():
                        error = error or _error_of(answer.status_code, line)
                        if line.startswith("data:"):
                            first = first or perf_counter()
            except httpx2.HTTPError as failure:
                error = f"{type(failure).__name__}: {failure}"
            ended = perf_counter()
            seen = Answer(
                model=model,
                number=number,
                at_s=sent - began,
                first_token_s=(first or ended) - sent,
                total_s=ended - sent,
                error=error,
            )
            answers.append(seen)
            tell(seen)

        async with asyncio.TaskGroup() as group:
            for number, arrival in enumerate(arrivals, start=first_number):
                group.create_task(one(number, arrival))
    return sorted(answers, key=lambda answer: answer.number)


def _request(model: str, prompt: str, number: int, arrival: Arrival) -> Mapping[str, object]:
    words = min(max(arrival.prompt_tokens // 1_000, 4), 20)
    question = f"Request {number}. " + " ".join(["Explain this function once more."] * (words // 5 + 1))
    return {
        "model": model,
        "messages": [
            *([{"role": "system", "content": prompt}] if prompt else ()),
            {"role": "user", "content": question},
        ],
        "max_tokens": min(max(arrival.output_tokens // 16, 4), MAX_TOKENS),
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _error_of(status: int, line: str) -> str:
    """Return what a line of an answer says went wrong; empty if nothing did."""
    if status == 200 and not line.startswith('data: {"error"'):
        return ""
    try:
        return f"{status}: {json.loads(line.removeprefix('data:'))['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{status}: {line[:200]}"
