"""Fixtures: a running gateway in front of toy engines on loopback."""

from collections.abc import AsyncIterator

import pytest

from .site import Site, running_site


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A gateway with one warm model `m1`."""
    async with running_site() as site:
        yield site
