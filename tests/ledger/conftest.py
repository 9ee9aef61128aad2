from pathlib import Path

import pytest
from tests.kept_log import KeptLog

from .story import HandClock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def log() -> KeptLog:
    return KeptLog()
