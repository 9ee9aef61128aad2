"""The demo's traffic: the same requests to both of its models, until both are parked."""

import asyncio
from collections.abc import Sequence
from functools import partial

from poorwill.compose.demo.progress import Show
from poorwill.compose.demo.replay import COLD, FROZEN, Answer, Arrival, bundled_slice, replay
from poorwill.compose.serving import Serving
from poorwill.core.words import ModelName, Tier


async def drive(serving: Serving, seconds: float, prompt: str, show: Show) -> Sequence[Answer]:
    """Replay the slice to both models, showing what happens, and wait for the last parks."""
    send = partial(replay, base_url=f"http://{serving.address}/v1", prompt=prompt, tell=show.answered)

    async def one(model: str, arrivals: Sequence[Arrival], first_number: int) -> Sequence[Answer]:
        answers = await send(arrivals, model=model, first_number=first_number)
        await serving.view.park(model, None)  # at once: neither is to linger for the other
        return answers

    async def both(arrivals: Sequence[Arrival], first_number: int = 1) -> Sequence[Answer]:
        frozen, cold = await asyncio.gather(*(one(model, arrivals, first_number) for model in (FROZEN, COLD)))
        return [*frozen, *cold]

    for line in serving.explained():
        show.line(line)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(show.follow(serving.view.events()))
        arrivals = bundled_slice(seconds=seconds)
        answers = await both(arrivals)
        if not show.woken - {Tier.COLD} and serving.ladders[ModelName(FROZEN)][0] is not Tier.COLD:
            # Too short a run for its gaps to be parks: a demo without a wake shows nothing.
            show.line("one more request, which finds them parked")
            answers = [*answers, *await both(arrivals[-1:], len(arrivals) + 1)]
        watching.cancel()
    show.done()
    return answers
