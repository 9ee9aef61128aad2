"""`docker run` lines: read, and completed."""

import pytest

from poorwill.core.launch import Place
from poorwill.core.settings import EngineSettings, ModelSettings, ReplicaSettings
from poorwill.core.words import ModelName
from poorwill.engines.recipe import LaunchContext
from poorwill.engines.recipes.command import command_recipe, vllm_recipe
from poorwill.hosts.containers.run_line import completed, container_name, mend_of, removal, run_line

UUIDS = ("GPU-1", "GPU-2")


def line(text: str):
    found = run_line(text.split())
    assert found is not None
    return found


def done(text: str, devices=None, variables=()) -> str:
    return " ".join(completed(line(text), name="n", devices=devices, variables=variables).words())


@pytest.mark.parametrize(
    "text",
    [
        "docker run image",
        "/usr/bin/podman container run -p 1:2 -it --rm image word --flag",
        "docker -H tcp://there:1 --debug run --gpus=all -e A=b image",
        "nerdctl run --init -v/a:/b image",
    ],
)
def test_run_lines(text: str) -> None:
    assert line(text).image == "image"


@pytest.mark.parametrize(
    "text", ["vllm run image", "docker exec box run it", "docker ps", "docker run -p 1:2", "docker", ""]
)
def test_other_lines(text: str) -> None:
    assert run_line(text.split()) is None


@pytest.mark.parametrize(
    ("given", "devices", "passed"),
    [
        ("--gpus all", UUIDS, '--gpus "device=GPU-1,GPU-2"'),
        ("--gpus=2", ("3",), '--gpus "device=3"'),
        ("--gpus all", (), ""),
        ("--gpus all", None, "--gpus all"),
        ("--gpus device=7", UUIDS, "--gpus device=7"),
        ("--device nvidia.com/gpu=all", UUIDS, "--device nvidia.com/gpu=GPU-1 --device nvidia.com/gpu=GPU-2"),
        ("--runtime nvidia", UUIDS, "--runtime nvidia --env NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-2"),
        (
            "--runtime nvidia -e NVIDIA_VISIBLE_DEVICES=all",
            UUIDS[:1],
            "--runtime nvidia -e NVIDIA_VISIBLE_DEVICES=GPU-1",
        ),
        ("--runtime nvidia", (), "--runtime nvidia --env NVIDIA_VISIBLE_DEVICES=void"),
    ],
)
def test_a_container_sees_its_devices_alone(given: str, devices: tuple[str, ...], passed: str) -> None:
    words = f"docker run {passed} --name n --rm --label poorwill=n image".split()
    assert done(f"docker run {given} image", devices).split() == words


def test_variables_pass_by_name() -> None:
    words = done("docker run -e B=2 -e C image", variables=["A", "B", "C", "DOCKER_HOST"])
    assert words == "docker run -e B=2 -e C --env A --name n --rm --label poorwill=n image"


def test_what_removes_a_container() -> None:
    assert removal(line("docker -H x run image"), "n") == ("docker", "-H", "x", "rm", "--force", "n")
    podman = removal(line("podman container run image"), "n")
    assert podman == ("podman", "container", "rm", "--force", "--ignore", "--time", "0", "n")


def test_names_tell_fleets_and_replicas_apart() -> None:
    names = {
        container_name(fleet, replica) for fleet in ("/a", "/b") for replica in ("m-0", "m-1", "org/m-0")
    }
    assert len(names) == 6 and all(name.startswith("poorwill-") and "/" not in name for name in names)


def test_what_mends_a_failed_run() -> None:
    assert "systemctl start" in mend_of("docker: Cannot connect to the Docker daemon at unix:///x.")
    assert mend_of("out of memory") == ""


def settings(**engine: object) -> ModelSettings:
    return ModelSettings(
        name=ModelName("m"),
        engine=EngineSettings(**engine),  # type: ignore[arg-type]
        replica=ReplicaSettings(model=ModelName("m")),
    )


CONTEXT = LaunchContext(
    host="127.0.0.1",
    port=7,
    cache="/c",
    env={"DOCKER_HOST": "tcp://x"},
    container="n",
    place=Place(devices=UUIDS[:1]),
)


@pytest.fixture
def on_path(tmp_path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "docker").chmod(0o755)
    return {"PATH": str(tmp_path)}


def test_vllm_in_a_container(on_path: dict[str, str]) -> None:
    command = ("docker", "run", "--network", "host", "--gpus", "all", "vllm/vllm-openai")
    recipe = vllm_recipe(settings(kind="vllm", path="org/m", command=command, env=on_path), CONTEXT)
    words = " ".join(recipe.argv)
    assert words.startswith('docker run --network host --gpus "device=GPU-1" --env CUDA_CACHE_PATH')
    assert "--rm --label poorwill=n vllm/vllm-openai org/m --host 127.0.0.1 --port 7" in words
    assert recipe.stop is not None and recipe.stop.argv == ("docker", "rm", "--force", "n")
    assert recipe.env["DOCKER_HOST"] == "tcp://x"


def test_a_stop_command_of_ones_own(on_path: dict[str, str]) -> None:
    command, stop = (
        ("docker", "run", "--name", "mine", "image", "{port}"),
        ("docker", "stop", "mine-{name}-{port}"),
    )
    recipe = command_recipe(
        settings(kind="command", command=command, stop_command=stop, env=on_path), CONTEXT
    )
    assert recipe.stop is not None and recipe.stop.argv == ("docker", "stop", "mine-m-7")
    assert recipe.stop.container == "mine" and recipe.argv.count("--name") == 1
