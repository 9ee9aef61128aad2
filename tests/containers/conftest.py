"""Container runtimes for the tests: a fake of Docker, and Debian's Podman where it runs (nightly)."""

# The test run is its own edge.
# ruff: noqa: TID251

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.tiers.conftest import TINY_ENGINE, Fleet, new_fleet

from poorwill.core.launch import Launch
from poorwill.core.settings import EngineSettings, ModelSettings, ReplicaSettings
from poorwill.core.words import ModelName
from poorwill.engines.recipe import LaunchContext
from poorwill.engines.recipes.command import command_recipe
from poorwill.hosts.containers.run_line import container_name
from poorwill.tiers.proof import free_port

FAKE = Path(__file__).with_name("fake_docker.py")
_PODMAN = """#!/bin/sh
# Podman in a mount namespace whose cgroup tree it understands: a hybrid one it refuses.
exec unshare -m sh -c '
  umount -R /sys/fs/cgroup; mount -t cgroup2 c /sys/fs/cgroup; exec {podman} "$@"
' podman "$@"
"""
_CONF = """[containers]
cgroups = "disabled"
netns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
events_logger = "file"
"""
_STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'


@dataclass(frozen=True)
class Runtime:
    """How a container is run here."""

    client: tuple[str, ...]
    options: tuple[str, ...]
    image: str
    env: dict[str, str]
    state: Path

    def launch(self, fleet: Fleet, *switches: str, **engine: object) -> Launch:
        """The launch of a tiny engine in a container, as the recipe of `command` makes it."""
        port, log = free_port(), str(fleet.directory / "logs" / "tiny.log")
        inner = (sys.executable, "-I", "-S", str(TINY_ENGINE), "{port}", *switches)
        settings = ModelSettings(
            name=ModelName("tiny"),
            engine=EngineSettings(
                kind="command",
                command=(*self.client, "run", *self.options, self.image, *inner),
                **engine,  # type: ignore[arg-type]
            ),
            replica=ReplicaSettings(model=ModelName("tiny")),
        )
        context = LaunchContext(
            host="127.0.0.1",
            port=port,
            cache=str(fleet.directory),
            env={**os.environ, **self.env},
            container=container_name(str(fleet.directory), "tiny"),
        )
        recipe = command_recipe(settings, context)
        return fleet.launch(
            argv=recipe.argv, env=recipe.env, port=port, log_path=log, stop=recipe.stop, engine="command"
        )

    def names(self) -> list[str]:
        """The names of all containers, running or not."""
        if self.client[0].endswith("podman"):
            line = [*self.client, "ps", "--all", "--format", "{{.Names}}"]
            done = subprocess.run(
                line, env={**os.environ, **self.env}, capture_output=True, text=True, check=True
            )
            return done.stdout.split()
        return [each.name for each in self.state.iterdir() if each.is_dir()]


@pytest.fixture
def docker(tmp_path: Path) -> Runtime:
    """The fake of Docker."""
    client = tmp_path / "docker"
    client.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {FAKE} "$@"\n')
    client.chmod(0o755)
    state = tmp_path / "daemon"
    state.mkdir()
    return Runtime((str(client),), (), "image", {"DOCKER_HOST": f"unix://{state}"}, state)


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Debian's Podman with an image that borrows this machine's programs."""
    if os.geteuid() != 0:
        pytest.skip("only root can install podman here")
    if not shutil.which("podman"):
        subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
        line = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "podman", "crun"]
        if subprocess.run(line, capture_output=True, check=False).returncode:
            pytest.skip("podman cannot be installed here")
    place = tmp_path_factory.mktemp("podman")
    (place / "containers.conf").write_text(_CONF)
    (place / "storage.conf").write_text(_STORAGE.format(place))
    client = place / "podman"
    client.write_text(_PODMAN.format(podman=shutil.which("podman")))
    client.chmod(0o755)
    with tarfile.open(place / "empty.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("note"))
    env = {
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
    }
    lent = {"/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix, str(TINY_ENGINE.parent)}
    options = tuple(word for path in sorted(lent) for word in ("-v", f"{path}:{path}:ro"))
    here = {**os.environ, **env}
    for line in (
        ["import", str(place / "empty.tar"), "tiny"],
        ["run", "--rm", *options, "tiny", "/usr/bin/true"],
    ):
        done = subprocess.run([str(client), *line], env=here, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"podman does not run here: {done.stderr[-300:]}")
    yield Runtime((str(client),), options, "tiny", env, place)
    subprocess.run([str(client), "rm", "--all", "--force", "--time", "0"], env=here, check=False)


@pytest.fixture(params=["docker", pytest.param("podman", marks=pytest.mark.nightly)])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Either runtime."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet in a directory of its own."""
    (tmp_path / "fleet").mkdir()
    return new_fleet(tmp_path / "fleet")
