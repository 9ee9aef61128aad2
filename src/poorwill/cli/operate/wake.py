"""`poorwill wake MODEL`: have a model ready before anybody asks for it."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import quote

from poorwill.cli.operate.status import state_of
from poorwill.cli.parsing.admin import ServedFleet, ask
from poorwill.cli.parsing.fleet import JsonOption, ModelArgument
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb
from poorwill.core.errors import PoorwillError
from poorwill.core.format import duration
from poorwill.ledger.history.views import PastWake
from poorwill.telemetry.dashboard.documents import StatusDocument, WokenDocument

LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeOptions:
    """The options of `poorwill wake`."""

    model: ModelArgument
    where: ServedFleet = field(default_factory=ServedFleet)
    json: JsonOption = False


async def _run(options: WakeOptions, streams: Streams) -> int:
    path = f"/models/{quote(options.model, safe='/')}/wake"
    before = None if options.json else await _last_wake(options, streams, 1)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_show(options, streams)) if streams.progress else None
        try:
            answer = await ask(options.where, streams.env, "POST", path, WokenDocument, timeout_s=None)
        finally:
            if watching is not None:
                watching.cancel()
    streams.show_progress("")
    if options.json:
        streams.say_json(answer)
        return 0
    streams.say(f"{options.model} is ready{await _how(options, streams, before)}")
    return 0


async def _show(options: WakeOptions, streams: Streams) -> None:
    """Show phases and the time left until cancelled. What cannot be asked is not shown."""
    while True:
        try:
            now = await ask(options.where, streams.env, "GET", "/status", StatusDocument)
        except PoorwillError:
            return
        meant = [one for one in now.replicas if options.model in (one.model, one.replica)]
        states = [state_of(one, now.now_us) for one in meant]
        streams.show_progress(f"{options.model}: {', '.join(states)}")
        await asyncio.sleep(LOOK_S)


async def _last_wake(options: WakeOptions, streams: Streams, last: int) -> PastWake | None:
    """Return the last wake that the ledger has; None if there is none, or it cannot be asked.

    The same question is answered from memory for two seconds; another `last` makes it another one.
    """
    path = f"/history/wakes?last={last}&model={quote(options.model)}"
    try:
        wakes = await ask(options.where, streams.env, "GET", path, list[PastWake])
    except PoorwillError:
        return None
    return wakes[0] if wakes else None


async def _how(options: WakeOptions, streams: Streams, before: PastWake | None) -> str:
    """Say from where it was woken, and where the time went; nothing if it was ready already."""
    for last in range(2, 7):
        wake = await _last_wake(options, streams, last)
        if wake is not None and wake != before:
            took_us, sums = wake.ended_us - wake.began_us, Counter[str]()
            for phase, began_us, ended_us in wake.phases:
                sums[phase] += ended_us - began_us
            phases = ", ".join(f"{phase} {duration(us)}" for phase, us in sums.items() if us * 50 > took_us)
            return f" after {duration(took_us)}, from {wake.from_tier}: {phases}"
        await asyncio.sleep(LOOK_S / 5)
    return ""


VERB = new_verb(
    WakeOptions,
    _run,
    WokenDocument,
    epilog="The wake counts against the spend limits; the ledger records that an operator asked for it.\n"
    "Interrupting this command does not stop the wake. Exit 0: ready; 7: it failed; 4: not serving.",
)
