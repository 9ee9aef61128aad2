"""`init` writes what `check` passes; `check` says everything, in text and as JSON."""

import json
import os
import re
import socket
import tomllib
from pathlib import Path

import pytest
from tests.conftest import Poorwill

from poorwill.compose.deployment.first_fleet import example
from poorwill.config import load_fleet
from poorwill.engines.weights.gguf_model import make_model


def size_of(path: str) -> int:
    return os.path.getsize(path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "My Llama (8B).Q4.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF and the rest")
    return path


async def test_the_example_is_valid_as_it_is(poorwill: Poorwill, tmp_path: Path) -> None:
    ran = await poorwill("init", str(tmp_path / "new" / "fleet"))
    assert ran.status == 0, ran.err
    path = tmp_path / "new" / "fleet" / "fleet.toml"
    assert str(path) in ran.out
    fleet = load_fleet(str(path), {})
    assert fleet.models[0].engine.kind == "llama.cpp"
    assert size_of(fleet.models[0].engine.path) > 1_000_000
    checked = await poorwill("check", str(path.parent))
    assert (checked.status, checked.err) == (0, "")
    assert f"{path}: OK" in checked.out
    assert "warning" not in checked.out


async def test_your_own_model_is_named_by_its_file(poorwill: Poorwill, tmp_path: Path, model: Path) -> None:
    inside = await poorwill("init", str(tmp_path), "--model", str(model))
    outside = await poorwill("init", str(tmp_path / "deep"), "--model", str(model), "--name", "org/x")
    assert (inside.status, outside.status) == (0, 0), inside.err + outside.err
    near = tomllib.loads((tmp_path / "fleet.toml").read_text())
    assert near["models"]["My-Llama-8B-.Q4"]["path"] == "models/My Llama (8B).Q4.gguf"
    assert load_fleet(str(tmp_path / "fleet.toml"), {}).models[0].engine.path == str(model)
    far = load_fleet(str(tmp_path / "deep" / "fleet.toml"), {}).models[0]
    assert (far.name, far.engine.path) == ("org/x", str(model))


async def test_init_never_overwrites(poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("mine")
    ran = await poorwill("init", str(tmp_path))
    assert ran.status == 3
    assert "exists already" in ran.err
    assert (tmp_path / "fleet.toml").read_text() == "mine"
    assert os.listdir(tmp_path) == ["fleet.toml"]


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), (b"pickle", "is no GGUF file")])
async def test_init_refuses_a_file_that_is_no_model(
    poorwill: Poorwill, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "m.bin"
    if content is not None:
        path.write_bytes(content)
    ran = await poorwill("init", str(tmp_path / "new"), "--model", str(path))
    assert ran.status == 2
    assert said in ran.err
    assert not (tmp_path / "new").exists()


async def test_init_refuses_an_impossible_name(poorwill: Poorwill, tmp_path: Path) -> None:
    ran = await poorwill("init", str(tmp_path / "new"), "--name", "two words")
    assert ran.status == 2
    assert not (tmp_path / "new").exists()


def test_commented_keys_of_the_example_exist(tmp_path: Path) -> None:
    text = example(name="m", path="m.gguf", own=True)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    # Uncomment every line that looks like TOML; of alternatives for one key only the last is kept.
    lines: list[str] = []
    for line in text.splitlines():
        bare = re.sub(r"^# (?=\[|[a-z_]+ = )", "", line)
        lines.append(bare)
    seen: dict[str, int] = {}
    for number, line in enumerate(lines):
        if line.startswith("["):
            seen = {}
        elif match := re.match(r"([a-z_]+) = ", line):
            if match[1] in seen:
                lines[seen[match[1]]] = ""
            seen[match[1]] = number
    everything = "\n".join(lines)
    assert everything.count("\n[") >= 9
    path = tmp_path / "fleet.toml"
    path.write_text(everything)
    fleet = load_fleet(str(path), {}, machine=False)
    assert {model.engine.kind for model in fleet.models} == {
        "llama.cpp",
        "vllm",
        "sglang",
        "command",
    }
    assert fleet.models[0].policy.name == "adaptive"
    assert fleet.models[0].floor.windows[0].zone == "Europe/Berlin"


def test_commented_values_are_the_defaults(tmp_path: Path) -> None:
    text = example(name="m", path="m.gguf", own=True)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "fleet.toml").write_text(text)
    plain = load_fleet(str(tmp_path / "fleet.toml"), {})
    keys = ("directory", "on_exit", "exit_s", "reap_orphans", "heartbeat_s", "commit_after_s")
    keys += ("max_body", "upstream_timeout_s", "drain_s", "hold")
    for key in keys:
        text, count = re.subn(rf"^# ({key} = )", r"\1", text, flags=re.MULTILINE)
        assert count == 1, key
    (tmp_path / "fleet.toml").write_text(text)
    assert load_fleet(str(tmp_path / "fleet.toml"), {}) == plain


async def test_check_prints_every_problem(poorwill: Poorwill, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text('[models.a]\nengine = "toi"\nport = -1\n')
    ran = await poorwill("check", str(path))
    assert ran.status == 2
    assert f"{path}:2: models.a.engine: 'toi' is not known\n    hint: did you mean 'toy'?" in ran.out
    assert f"{path}:3: models.a.port: -1 is out of range" in ran.out
    assert ran.out.endswith("2 problems\n")
    as_json = await poorwill("check", str(path), "--json")
    answer = json.loads(as_json.out)
    assert as_json.status == 2
    assert [problem["line"] for problem in answer["problems"]] == [2, 3]
    assert answer["ok"] is False


async def test_other_verbs_print_the_same_problems(poorwill: Poorwill, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text('[models.a]\nengine = "toi"\nport = -1\n')
    ran = await poorwill("status", "--fleet", str(path))
    assert ran.status == 2
    assert ran.out == ""
    assert "line 2: models.a.engine" in ran.err
    assert "line 3: models.a.port" in ran.err


async def test_check_json_says_what_would_be_served(poorwill: Poorwill, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text('[models.a]\nengine = "toy"\n[gateway]\nlisten = "127.0.0.2:0"\n')
    ran = await poorwill("check", str(path), "--json")
    answer = json.loads(ran.out)
    assert (ran.status, answer["ok"], answer["listen"]) == (0, True, "127.0.0.2:0")
    assert answer["models"][0]["ladder"] == ["cold"]
    warned = [warning["where"] for warning in answer["warnings"]]
    assert warned == ["rates", "models.a.ladder"]


async def test_check_ports_names_the_taken_port(poorwill: Poorwill, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "fleet.toml"
        text = f'[models.a]\nengine="toy"\n[gateway]\nlisten="127.0.0.1:{port}"\nadmin="127.0.0.1:0"\n'
        path.write_text(text)
        assert (await poorwill("check", str(path))).status == 0
        ran = await poorwill("check", str(path), "--ports")
    assert ran.status == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ran.out
    assert (await poorwill("check", str(path), "--ports")).status == 0


async def test_schema_and_manual_need_no_file(poorwill: Poorwill, tmp_path: Path) -> None:
    schema = await poorwill("check", str(tmp_path / "none"), "--schema")
    assert json.loads(schema.out)["properties"]["models"]
    manual = await poorwill("check", "--manual")
    assert "wake_budget_s" in manual.out


async def test_a_model_file_that_is_cut_short(poorwill: Poorwill, tmp_path: Path) -> None:
    model = make_model(tmp_path / "m.gguf")
    (tmp_path / "fleet.toml").write_text('[models.m]\npath = "m.gguf"\n')
    assert (await poorwill("check", str(tmp_path))).status == 0
    whole = model.read_bytes()
    for keep, told in (
        (len(whole) - 1000, "1,000 bytes are missing"),
        (100, "ends within its header"),
    ):
        model.write_bytes(whole[:keep])
        ran = await poorwill("check", str(tmp_path))
        assert ran.status == 2
        assert "fleet.toml:2: models.m.path: the model" in ran.out and told in ran.out
        assert "hint: download or copy it again" in ran.out


async def test_engines_that_cannot_are_a_warning(poorwill: Poorwill, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    model = '[models.a]\nengine = "vllm"\npath = "org/model"\nladder = ["asleep", "cold"]\n'
    path.write_text(model)
    ran = await poorwill("check", str(path), PATH=str(tmp_path))
    assert ran.status == 0
    assert "models.a.engine: there is no program 'vllm' on PATH" in ran.out
    assert "models.a.ladder: asleep will be skipped: the engine vllm sleeps only" in ran.out
    (tmp_path / "vllm").write_text("#!/bin/sh\n")
    (tmp_path / "vllm").chmod(0o755)
    path.write_text(model + "options = { sleep = true }\n")
    ran = await poorwill("check", str(path), PATH=str(tmp_path))
    assert "PATH" not in ran.out and "asleep will" not in ran.out
