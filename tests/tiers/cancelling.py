"""Cancelling a coroutine at exactly its n-th await, so that a test can try every one in turn."""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def _cancelled_at(step: int, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Drive `coroutine`; at its await number `step` (from 0) cancel the task that runs it."""
    awaited = 0
    advance, argument = coroutine.send, None
    while True:
        try:
            future = advance(argument)  # type: ignore[arg-type]
        except StopIteration as stop:
            return stop.value
        if awaited == step:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        awaited += 1
        try:
            yield future
        except BaseException as error:
            advance, argument = coroutine.throw, error  # type: ignore[assignment]
        else:
            advance, argument = coroutine.send, None


async def cancelled_at(step: int, coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Run `coroutine`, cancelling it at its await number `step`; return False where it has fewer.

    Anything but a clean cancellation (a result after it, another exception) is an AssertionError.
    """
    task = asyncio.get_running_loop().create_task(_run(step, coroutine))
    await asyncio.wait({task})
    if task.cancelled():
        return True
    error = task.exception()
    if error is not None:
        raise AssertionError(f"cancelled at await {step}, it raised {error!r}") from error
    assert task.cancelling() == 0, f"cancelled at await {step}, it returned {task.result()!r}"
    return False


async def _run(step: int, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await _cancelled_at(step, coroutine)
