"""docs/deploy.md names metrics, commands and options; they have to exist."""

import re
from pathlib import Path

from poorwill.core.ports.view import Configuration
from poorwill.telemetry.metrics import GatewayMetrics

MANUAL = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()


class NoReplicas:
    def status(self) -> tuple[()]:
        return ()

    def configuration(self) -> Configuration:
        return Configuration()

    def limits(self) -> tuple[()]:
        return ()


def test_every_metric_to_watch_exists() -> None:
    text = GatewayMetrics().exposition(NoReplicas())
    named = set(re.findall(r"`(poorwill_\w+)", MANUAL))
    assert len(named) > 8
    assert named <= set(re.findall(r"^# HELP (\w+)", text, re.MULTILINE))
