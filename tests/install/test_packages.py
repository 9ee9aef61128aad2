"""The wheel and the source package, installed by pip from an index of our own."""

import functools
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from email import message_from_string
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages, laid out as a simple index (PEP 503)."""
    index = tmp_path_factory.mktemp("index")
    home = index / "simple" / "poorwill"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", home], cwd=ROOT, check=True, capture_output=True
    )
    files = sorted(path.name for path in home.iterdir())
    assert [name.rpartition(".")[2] for name in files] == ["whl", "gz"] or len(files) == 2
    (home / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in files))
    return index


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def index(packages: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(packages)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
    server.shutdown()
    thread.join()
    server.server_close()


def pip(*words: str) -> None:
    line = [sys.executable, "-m", "pip", "--isolated", "-q", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "kind", [["--only-binary", ":all:"], ["--no-binary", ":all:", "--no-build-isolation"]]
)
def test_pip_installs_it(tmp_path: Path, index: str, kind: list[str]) -> None:
    target = tmp_path / "site"
    pip(
        "install",
        "--no-deps",
        "--no-cache-dir",
        "--index-url",
        index,
        *kind,
        "--target",
        str(target),
        "poorwill",
    )
    env = {**os.environ, "PYTHONPATH": str(target), "HOME": str(tmp_path)}  # noqa: TID251
    where = "import poorwill; print(poorwill.__file__)"
    for words, said in (
        (["-c", where], str(target)),
        (["-m", "poorwill", "init", str(tmp_path / "fleet")], "fleet.toml"),
        (["-m", "poorwill", "completion", "bash"], "complete"),
    ):
        ran = subprocess.run(
            [sys.executable, *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0 and said in ran.stdout + ran.stderr, ran.stderr


def test_the_wheel_has_every_file(packages: Path) -> None:
    (wheel,) = (packages / "simple" / "poorwill").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in inside if name.endswith(".dist-info/METADATA"))
    listed = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.removeprefix("src/") for name in listed.stdout.split()} <= inside
    told = message_from_string(metadata)
    assert {"cuda", "qemu", "encrypt", "otel", "plot"} <= set(told.get_all("Provides-Extra", []))
    assert told["License-Expression"] == "Apache-2.0" and "scale-to-zero" in told.get_payload().lower()
    assert not any(name.startswith("tests/") for name in inside)


@pytest.mark.nightly
def test_a_release_is_made_whole() -> None:
    done = subprocess.run([ROOT / "dev", "release"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bill = json.loads((ROOT / "dist" / "poorwill.cdx.json").read_text())
    locked = [
        line.split("==")[0]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line[:60]
    ]
    assert bill["bomFormat"] == "CycloneDX"
    assert {each["name"].lower() for each in bill["components"]} >= {
        name.lower() for name in locked if name[0] != " "
    }
    sums = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=ROOT / "dist", capture_output=True, check=False
    )
    assert sums.returncode == 0
