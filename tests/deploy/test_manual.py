"""docs/deploy.md names metrics, commands and options; they have to exist."""

import re
from pathlib import Path

import pytest
from tests.conftest import Poorwill

from poorwill.telemetry.metrics import GatewayMetrics

MANUAL = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()


class NoReplicas:
    def status(self) -> tuple[()]:
        return ()

    def limits(self) -> tuple[()]:
        return ()


def test_every_metric_to_watch_exists() -> None:
    text = GatewayMetrics().exposition(NoReplicas())
    named = set(re.findall(r"`(poorwill_\w+)", MANUAL))
    assert len(named) > 8
    assert named <= set(re.findall(r"^# HELP (\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("line", sorted(set(re.findall(r"poorwill (\w+ .*--[a-z-]+)", MANUAL))))
async def test_every_option_exists(poorwill: Poorwill, line: str) -> None:
    verb, *words = line.split()
    manual = (await poorwill(verb, "--help")).out
    for option in [word.rstrip("`)") for word in words if word.startswith("--")]:
        assert option in manual, f"poorwill {verb} has no {option}"
