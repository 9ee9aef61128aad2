"""The Containerfile, built with buildah on a base of Debian packages, and run. Nightly: two minutes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.nightly
BUILDAH = ("buildah", "--storage-driver", "vfs")
RUN = (*BUILDAH, "run", "--isolation", "chroot")


def run(*line: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can make a base here")
    for program in ("buildah", "mmdebstrap"):
        if not shutil.which(program):
            subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
            line = ["apt-get", "install", "-y", "-q", "--no-install-recommends", program]
            if subprocess.run(line, capture_output=True, check=False).returncode:
                pytest.skip(f"{program} cannot be installed here")
    place = tmp_path_factory.mktemp("base")
    run(
        "mmdebstrap", "--variant=minbase", "--include=python3,ca-certificates", "bookworm", place / "base.tar"
    )
    (place / "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
    run(*BUILDAH, "bud", "--isolation", "chroot", "-t", "poorwill-test-base", place)
    run(ROOT / "dev", "build")
    base = "BASE=localhost/poorwill-test-base"
    run(*BUILDAH, "bud", "--isolation", "chroot", "--build-arg", base, "-t", "poorwill-test", ROOT)
    return run(*BUILDAH, "from", "localhost/poorwill-test").strip()


def test_the_image_runs(container: str) -> None:
    assert run(*RUN, container, "--", "poorwill", "--version").startswith("poorwill ")
    assert run(*RUN, container, "--", "id", "-un").strip() == "poorwill"
    run(*RUN, container, "--", "poorwill", "init", ".")
    assert "fleet.toml" in run(*RUN, container, "--", "ls")
    assert "OK" in run(*RUN, container, "--", "poorwill", "check", ".")
