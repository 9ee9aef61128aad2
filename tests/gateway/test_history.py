"""What the dashboard asks of the past: each question, its bounds, and many pages asking at once."""

import asyncio
import os

import httpx2
import pytest

from poorwill.core.words import HOUR_US

from .site import running_site
from .toy_history import ToyHistory


async def test_every_question_is_answered() -> None:
    async with running_site() as site, httpx2.AsyncClient(base_url=site.admin, trust_env=False) as admin:
        ribbons = (await admin.get("/history/ribbons?hours=2")).json()
        assert ribbons["to_us"] - ribbons["from_us"] == 2 * HOUR_US
        assert ribbons["rows"][0]["stretches"] == [[ribbons["from_us"], None, "linger", 7, 0]]
        assert (await admin.get("/history/costs")).json()["days"] == [[0, "linger", 5]]
        assert (await admin.get("/history/explain?model=m1&at_us=3")).json() == ["m1 at 3"]
        edges = "this_from=1&this_to=2&last_from=3&last_to=4"
        assert (await admin.get(f"/history/compare?{edges}")).json() == ["(1, 2) against (3, 4)"]
        assert (await admin.get("/history/log?replica=m1-0")).json() == {"text": "m1-0 from None", "next": 9}
        assert (await admin.get("/history/log?replica=m1-0&start=4")).json()["text"] == "m1-0 from 4"


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ("ribbons?hours=0", 400),
        ("ribbons?hours=x", 400),
        ("ribbons?hours=100000", 400),
        ("requests?last=999999", 400),
        ("explain?model=m1", 400),
        ("explain?model=m1&at_us=" + "9" * 25, 400),
        ("explain?model=other&at_us=1", 404),
        ("compare?this_from=1", 400),
        ("log?replica=m1-0&start=-1", 400),
        ("secrets", 404),
    ],
)
async def test_wrong_questions_are_refused(question: str, status: int) -> None:
    async with running_site() as site, httpx2.AsyncClient(base_url=site.admin, trust_env=False) as admin:
        answer = await admin.get(f"/history/{question}")
        assert answer.status_code == status and answer.json()["error"]["message"]


async def test_fifty_pages_ask_the_ledger_once() -> None:
    history = ToyHistory()
    async with (
        running_site(history=history) as site,
        httpx2.AsyncClient(base_url=site.admin, trust_env=False) as admin,
    ):
        answers = await asyncio.gather(*(admin.get("/history/costs") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert history.asked == ["costs"]


async def test_actions_are_logged_with_their_user() -> None:
    async with running_site() as site, httpx2.AsyncClient(base_url=site.admin, trust_env=False) as admin:
        await admin.post("/models/m1/wake", headers={"user-agent": "a browser"})
        [fields] = [fields for _, message, fields in site.log.lines if message == "an operator asked"]
    assert fields["what"] == "wake" and fields["model"] == "m1" and fields["program"] == "a browser"
    assert fields["by"] == f"user {os.geteuid()}"
