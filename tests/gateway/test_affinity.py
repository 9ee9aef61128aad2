"""The gateway remembers who served a conversation last, in every kind of body, and asks only who cares."""

import pytest

from .site import post, running_site
from .talk import talk

HI, MORE = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}
TURNS = {
    "/v1/chat/completions": ({"messages": [HI]}, {"messages": [HI, MORE, HI]}),
    "/v1/messages": ({"system": "s", "messages": [HI]}, {"system": "s", "messages": [HI, MORE, HI]}),
    "/v1/responses": ({"input": [HI]}, {"input": [HI, MORE, HI]}),
    "/api/chat": ({"messages": [HI], "stream": False}, {"messages": [HI, MORE, HI], "stream": False}),
    "/v1/completions": ({"prompt": "a" * 1_500}, {"prompt": "a" * 1_500 + "b"}),
}


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("path", TURNS)
async def test_who_served_it_last_is_known(path: str, parked: bool) -> None:
    first, second = TURNS[path]
    async with running_site(parked=parked) as site:
        site.activator.lasts = []
        for turn in (first, second):
            async with talk(site.port) as client:
                client.send(post({"model": "m1"} | turn, path=path))
                if parked and turn is first:
                    await site.held()
                    site.wake()
                await client.answer()
        *before, last = site.activator.lasts
        assert set(before) == {None} and last == "m1-0"


async def test_another_conversation_is_not() -> None:
    async with running_site() as site, talk(site.port) as client:
        site.activator.lasts = []
        for text in ("hi", "hello"):
            client.send(post({"model": "m1", "messages": [HI | {"content": text}]}))
            await client.answer()
        assert site.activator.lasts == [None, None]
