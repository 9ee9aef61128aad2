"""Downloads that operators ask for: one after another, with progress, stopped or failed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.ledger.story import HandClock
from tests.waiting import until

from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault, TryLater
from poorwill.telemetry.dashboard.pulls import MOST_ENDED, MOST_UNDER_WAY, Download, Progress, Pulls


class Hub:
    """Has models; a download goes on for as long as a test wants."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.stopped: list[str] = []
        self.go_on = asyncio.Event()
        self.ends: BaseException | None = None

    def find(self, name: str) -> tuple[str, Download]:
        if not name.startswith("hf:"):
            raise OperatorFault(ErrorCode.CONFIG_INVALID, f"there is no model {name!r}", hint="name one")

        async def download(progress: Progress) -> str:
            progress(1, 4)
            self.begun.put_nowait(name)
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.stopped.append(name)
                raise
            if self.ends is not None:
                raise self.ends
            progress(4, 4)
            return f"/cache/{name}"

        return name + "@main", download


@asynccontextmanager
async def working(hub: Hub) -> AsyncIterator[Pulls]:
    pulls = Pulls(find=hub.find, clock=HandClock())
    work = asyncio.get_running_loop().create_task(pulls.work())
    try:
        yield pulls
    finally:
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()


async def over(pulls: Pulls, number: int = 0) -> str:
    await until(lambda: pulls.now()[number].state not in ("waiting", "pulling"))
    return pulls.now()[number].state


async def test_one_after_another() -> None:
    hub = Hub()
    async with working(hub) as pulls:
        assert pulls.ask("hf:a", by="user 7").state == "waiting"
        pulls.ask("hf:b", by="user 7")
        assert await hub.begun.get() == "hf:a"
        second, first = pulls.now()
        assert (first.state, first.done_bytes, first.need_bytes, first.by) == ("pulling", 1, 4, "user 7")
        assert second.state == "waiting" and hub.begun.empty()
        hub.go_on.set()
        assert await over(pulls) == "done"
        assert [(one.name, one.path) for one in pulls.now()][1] == ("hf:a@main", "/cache/hf:a")


async def test_asking_twice_pulls_once() -> None:
    hub = Hub()
    async with working(hub) as pulls:
        pulls.ask("hf:a", by="one")
        await hub.begun.get()
        assert pulls.ask("hf:a", by="two").by == "one"
        hub.go_on.set()
        await over(pulls)
        assert pulls.ask("hf:a", by="two").state == "waiting"
        assert len(pulls.now()) == 1


async def test_a_stopped_pull_makes_way() -> None:
    hub = Hub()
    async with working(hub) as pulls:
        pulls.ask("hf:a", by="me")
        pulls.ask("hf:b", by="me")
        pulls.ask("hf:c", by="me")
        await hub.begun.get()
        assert pulls.stop("hf:b@main").state == "stopped"
        assert pulls.stop("hf:a@main").state == "stopped"
        assert await hub.begun.get() == "hf:c" and hub.stopped == ["hf:a"]
        with pytest.raises(RequestFault):
            pulls.stop("hf:never")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OperatorFault(ErrorCode.WAKE_FAILED, "no such revision", hint="see @"), "no such revision (see @)"),
        (OSError("disk full"), "disk full"),
    ],
)
async def test_a_failure_is_told_and_the_next_begins(error: Exception, why: str) -> None:
    hub = Hub()
    hub.ends = error
    hub.go_on.set()
    async with working(hub) as pulls:
        pulls.ask("hf:a", by="me")
        assert await over(pulls) == "failed" and pulls.now()[0].why == why
        hub.ends = None
        pulls.ask("hf:b", by="me")
        assert await over(pulls) == "done"


async def test_wishes_are_bounded() -> None:
    hub = Hub()
    async with working(hub) as pulls:
        with pytest.raises(RequestFault, match="there is no model"):
            pulls.ask("unknown", by="me")
        for number in range(MOST_UNDER_WAY):
            pulls.ask(f"hf:{number}", by="me")
        with pytest.raises(TryLater):
            pulls.ask("hf:more", by="me")
        hub.go_on.set()
        await over(pulls)
        pulls.ask("hf:last", by="me")
        assert len(pulls.now()) == MOST_ENDED + 1


async def test_the_end_stops_what_is_under_way() -> None:
    hub = Hub()
    async with working(hub) as pulls:
        pulls.ask("hf:a", by="me")
        await hub.begun.get()
    assert hub.stopped == ["hf:a"]
