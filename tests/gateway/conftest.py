"""Fixtures: a running gateway in front of toy engines on loopback."""

from collections.abc import AsyncIterator

import pytest

from .site import Site, running_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A gateway with one warm model `m1`."""
    async with running_site() as site:
        yield site
