"""Installing CRIU into a private prefix: with the real apt where there is one, and what goes wrong."""

# ruff: noqa: ASYNC240, TID251

import os
from pathlib import Path

import pytest

from poorwill.compose.deployment.criu_install import install_criu
from poorwill.core.errors import OperatorFault
from poorwill.tiers.frozen.criu import find_criu, inspect_criu, private_prefix


@pytest.fixture(scope="module")
def apt_reaches_debian() -> None:
    if not Path("/usr/bin/apt-get").exists():
        pytest.skip("no apt here")


@pytest.mark.nightly
async def test_criu_is_installed_with_its_libraries(tmp_path: Path, apt_reaches_debian: None):
    prefix = tmp_path / "data" / "poorwill" / "criu"
    told: list[str] = []
    before = Path("/var/lib/dpkg/status").read_bytes()
    try:
        criu = await install_criu(prefix, env=os.environ, tell=told.append)
    except OperatorFault as fault:
        pytest.skip(f"cannot install CRIU here: {fault}")
    assert Path("/var/lib/dpkg/status").read_bytes() == before, "the system is left alone"
    assert criu.binary == str(prefix / "criu") and criu.version[0] in "45"
    assert len(told) == 3
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["criu"]
    found = await find_criu({"HOME": "/", "XDG_DATA_HOME": str(tmp_path / "data"), "PATH": "/none"})
    assert found == criu
    told.clear()
    assert await install_criu(prefix, env={}, tell=told.append) == criu
    assert told == [], "a second time there is nothing to do"


async def test_without_apt_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("poorwill.compose.deployment.criu_install.TOOL_PATH", str(tmp_path))
    with pytest.raises(OperatorFault, match="this machine has no apt") as caught:
        await install_criu(tmp_path / "prefix" / "criu", env={})
    assert "install CRIU 4.2 or later yourself" in str(caught.value)
    assert list((tmp_path / "prefix").iterdir()) == []


async def test_another_program_called_criu_is_ignored(tmp_path: Path):
    other = tmp_path / "criu"
    assert await inspect_criu(str(other)) is None
    other.write_text("#!/bin/sh\necho hello\n")
    assert await inspect_criu(str(other)) is None
    other.chmod(0o755)
    assert await inspect_criu(str(other)) is None
    other.write_text("#!/nonexistent/interpreter\n")
    assert await inspect_criu(str(other)) is None
    other.write_text("#!/bin/sh\necho Version: 9.1\n")
    criu = await inspect_criu(str(other))
    assert criu is not None and criu.version == "9.1"


async def test_the_newest_criu_is_used(tmp_path: Path):
    env = {"XDG_DATA_HOME": str(tmp_path / "data"), "PATH": str(tmp_path / "bin")}
    assert await find_criu(env) is None
    prefix = private_prefix(env)
    for place, version in ((prefix, "4.2.1"), (tmp_path / "bin", "4.10")):
        place.mkdir(parents=True)
        (place / "criu").write_text(f"#!/bin/sh\necho Version: {version}\n")
        (place / "criu").chmod(0o755)
    found = await find_criu(env)
    assert found is not None and found.version == "4.10"
