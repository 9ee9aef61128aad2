"""Asks an engine over HTTP: one request, one connection, closed before returning.

A connection left open to an engine would keep it from being frozen, so nothing here keeps any.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx2

from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.engine import UNANSWERED
from poorwill.core.settings import EngineUrl
from poorwill.hosts.files.reach import Reach
from poorwill.remote.http_answers import answered_status, bounded_answer

MOST_ANSWER_S = 120.0
VITALS_S = 3.0
_PROMPT = "The common poorwill is"
_TOKENS = 8
_WORK = re.compile(r"(?m)^(?!\S*second)[\w:]*(?:token|iteration|decode|cache_usage)[^\n#]*$")
"""Samples of vLLM, SGLang and llama.cpp (`vllm:generation_tokens_total`, `vllm:kv_cache_usage_perc`,
`sglang:token_usage`, `llamacpp:n_decode_total`). Not rates and durations: some begin anew with each look."""


class NoQuestion(DriverError):
    """The engine serves no path that takes a text: it may be for speech, images or ranking alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An engine's address, the model's name there, and fields to add to each question."""

    host: str
    port: int
    model: str
    extra: Mapping[str, object]
    reach: Reach | None = None
    """Of an engine elsewhere."""

    def client(self, *, timeout_s: float) -> httpx2.AsyncClient:
        """Return a client of the engine, as `engine_client`."""
        return engine_client(self.host, self.port, timeout_s=timeout_s, reach=self.reach)


def engine_client(
    host: str, port: int, *, timeout_s: float | None, reach: Reach | None = None
) -> httpx2.AsyncClient:
    """Return a client of an engine, for an `async with`; it closes each connection after its answer."""
    url = reach.url if reach else EngineUrl(host, port)
    return httpx2.AsyncClient(
        base_url=str(url),
        timeout=timeout_s,
        trust_env=False,
        verify=reach.verify if reach else False,
        headers={"connection": "close", **(reach.headers if reach else {})},
    )


def why_unanswered(path: str, error: httpx2.HTTPError) -> str:
    """Return, for people, why a call to an engine got no answer."""
    return f"no answer to {path}: {f'{type(error).__name__} {error}'.strip()}"


async def answers(endpoint: Endpoint, path: str, *, timeout_s: float) -> bool:
    """Return whether a GET of `path` gets a 200 now. Cancelled: the connection is closed."""
    try:
        async with endpoint.client(timeout_s=timeout_s) as client:
            return await answered_status(client, path) == 200
    except httpx2.HTTPError:
        return False


async def vital_signs(endpoint: Endpoint, paths: Sequence[str]) -> str | None:
    """Return the counters that the answers to these paths hold, which change while an engine works.

    Of Prometheus text only what counts tokens, engine steps and used cache: other counters rise with the
    question itself. A path that it does not serve tells nothing. None: the first, its health, got no answer
    within `VITALS_S`; UNANSWERED: another one. Cancelled: the connection is closed.
    """
    told: list[str] = []
    async with endpoint.client(timeout_s=VITALS_S) as client:
        for path in paths:
            try:
                async with asyncio.timeout(VITALS_S):
                    answer = await bounded_answer(client, "GET", path)
            except (httpx2.HTTPError, TimeoutError):
                return None if path == paths[0] else UNANSWERED
            if answer.status_code == 200 and path != paths[0]:
                is_json = "json" in answer.headers.get("content-type", "")
                told += [answer.text] if is_json else _WORK.findall(answer.text)
    return "\n".join(told)


async def warm_up(endpoint: Endpoint, *, timeout_s: float) -> None:
    """Have the engine answer one token of anything: its first forward pass, so that no user pays for it.

    Raises DriverError if it answers no question with 200, NoQuestion if it serves none. Cancelled: the
    connection is closed.
    """
    await _asked(endpoint, tokens=1, timeout_s=timeout_s, enough=lambda answer: True)


async def greedy_text(endpoint: Endpoint, *, timeout_s: float = MOST_ANSWER_S) -> str:
    """Return the engine's greedy continuation of a fixed prompt.

    Raises DriverError if it answers nothing that can be compared. Cancelled: the connection is closed.
    """
    answer = await _asked(
        endpoint, tokens=_TOKENS, timeout_s=timeout_s, enough=lambda answer: _text(answer) != ""
    )
    return _text(answer)


async def _asked(
    endpoint: Endpoint, *, tokens: int, timeout_s: float, enough: Callable[[httpx2.Response], bool]
) -> httpx2.Response:
    """Return the first answer that is enough.

    Tries a completion, then a chat, then an embedding: not every engine has each.
    """
    refusals: list[str] = []
    unserved = True
    named = re.compile(rf"(?<![\w.-]){re.escape(endpoint.model)}(?![\w.-])")
    questions = (
        ("/v1/completions", {"prompt": _PROMPT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": _PROMPT}]}),
        ("/v1/embeddings", {"input": _PROMPT}),
    )
    async with endpoint.client(timeout_s=timeout_s) as client:
        for path, body in questions:
            sampling = {} if path == "/v1/embeddings" else _sampling(endpoint, tokens)
            try:
                question = {"model": endpoint.model, **body, **sampling}
                answer = await bounded_answer(client, "POST", path, json=question)
            except httpx2.HTTPError as error:
                raise DriverError(why_unanswered(path, error)) from error
            if answer.status_code == 200 and enough(answer):
                return answer
            # A 404 that speaks of the model is vLLM's and Ollama's for a name that they do not know.
            unserved &= answer.status_code in (404, 405) and not named.search(answer.text)
            said = " ".join(answer.text.split())[:200]
            refusals.append(f"{path} {answer.status_code} {said}")
    fault = NoQuestion if unserved else DriverError
    raise fault("the engine answers no question: " + "; ".join(refusals))


def _sampling(endpoint: Endpoint, tokens: int) -> dict[str, object]:
    return {"max_tokens": tokens, "temperature": 0, "seed": 0, **endpoint.extra}


def _text(answer: httpx2.Response) -> str:
    """Return what the answer says, empty if it says nothing of use."""
    try:
        body = answer.json()
        if "data" in body:
            return " ".join(f"{value:.4f}" for value in body["data"][0]["embedding"][:16])
        choice = body["choices"][0]
        if "text" in choice:
            return str(choice["text"] or "")
        message = choice["message"]
        return str(message.get("content") or message.get("reasoning_content") or "")
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
