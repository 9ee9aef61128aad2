"""`./dev build` makes one file that needs nothing beside it. Nightly: a build takes a minute or two."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, alone in a directory."""
    done = subprocess.run([ROOT / "dev", "build"], capture_output=True, text=True, check=False)
    if "Could not find a version" in done.stderr or "Connection" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    size, digest = re.fullmatch(
        r"dist/poorwill  (\d+) bytes, for CPython [^\n]*\n(\w{64})  dist/poorwill\n", done.stdout
    ).groups()  # type: ignore[union-attr]
    data = (ROOT / "dist" / "poorwill").read_bytes()
    assert len(data) == int(size)
    target = tmp_path_factory.mktemp("alone") / "poorwill"
    target.write_bytes(data)
    target.chmod(0o755)
    told = subprocess.run(["sha256sum", target], capture_output=True, text=True, check=True)
    assert told.stdout.split()[0] == digest
    return target


def run(built: Path, *words: str) -> str:
    """Run the file as on a server: its own directory, a cache of its own, nothing else."""
    done = subprocess.run(
        [built, *words],
        cwd=built.parent,
        env=env(built),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def env(built: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251
        "HOME": os.environ["HOME"],  # noqa: TID251 - a CRIU of poorwill's own is found by it
        "PEX_ROOT": str(built.parent / "cache"),
    }


@pytest.fixture
def serving(built: Path, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A fleet with the embedded engine, served by the file."""
    run(built, "init", str(tmp_path))
    run(built, "check", str(tmp_path))
    child = subprocess.Popen(
        [built, "serve", str(tmp_path), "--port", "0"],
        env=env(built),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with child:
        assert child.stdout is not None
        found = re.match(r"serving http://(\S+)", child.stdout.readline())
        assert found
        yield tmp_path, found[1]
        child.send_signal(signal.SIGTERM)
        assert child.wait(90) == 0


def ask(address: str) -> str:
    answer = httpx2.post(
        f"http://{address}/v1/chat/completions",
        json={
            "model": "random-5m",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 8,
            "temperature": 0,
        },
        timeout=120,
    )
    return str(answer.json()["choices"][0]["message"])


def test_the_file_alone_wakes_parks_wakes_and_bills(built: Path, serving: tuple[Path, str]) -> None:
    fleet, address = serving
    first = ask(address)
    run(built, "park", "random-5m", "--fleet", str(fleet))
    assert ask(address) == first
    status = json.loads(run(built, "status", "--fleet", str(fleet), "--json"))
    assert status["replicas"][0]["wake"]["count"] == 2
    assert "serving" in run(built, "bill", "--fleet", str(fleet))


def test_engines_run_from_the_unpacked_environment(built: Path, serving: tuple[Path, str]) -> None:
    fleet, address = serving
    ask(address)
    commands = [
        path.read_bytes().split(b"\0")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(fleet).encode() in path.read_bytes() and b"llamacpp_server" in path.read_bytes()
    ]
    assert [command[0].startswith(bytes(built.parent / "cache")) for command in commands] == [True]
