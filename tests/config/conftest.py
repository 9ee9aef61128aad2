from collections.abc import Callable
from pathlib import Path

import pytest

from poorwill.config import load_fleet
from poorwill.core.problems import ConfigFault
from poorwill.core.settings import FleetSettings

TOY = '[models.toy]\nengine = "toy"\n'
"""The smallest valid file."""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "m.gguf").write_bytes(b"GGUF and the rest")

    def write_file(text: str) -> Path:
        path = tmp_path / "fleet.toml"
        path.write_bytes(text.encode())
        return path

    return write_file


def read(path: Path, **env: str) -> FleetSettings:
    return load_fleet(str(path), env)


def problems_of(path: Path, **env: str) -> list[str]:
    try:
        read(path, **env)
    except ConfigFault as fault:
        return [str(problem) for problem in fault.problems]
    return []
