"""Aliases, presets and adapters: several names over one engine."""

import asyncio
import io
import json
from pathlib import Path

import httpx2
import pytest

from poorwill.cli.run import run
from poorwill.compose.served.catalogue import rows_of
from poorwill.config import load_fleet

from .program import Program, marked_processes, write_fleet

SAYS = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("embeds", [False, True])
def test_llamacpp_embeds_if_it_is_told_to(tmp_path: Path, *, embeds: bool) -> None:
    options = f"options = {{ embeddings = {str(embeds).lower()} }}"
    (tmp_path / "fleet.toml").write_text(f'[models.a]\nengine = "llama.cpp"\npath = "a.gguf"\n{options}\n')
    (model,) = load_fleet(str(tmp_path / "fleet.toml"), {}, machine=False).models
    (row,) = rows_of(model, ["parked cold"], started_s=0)
    offered = row["capabilities"]
    assert isinstance(offered, list)
    assert ("embeddings" in offered, "rerank" in offered) == (embeds, embeds)
    assert "chat/completions" in offered and "audio/transcriptions" not in offered


def configured(fleet: Path, keys: str) -> Path:
    write_fleet(fleet)
    file = fleet / "fleet.toml"
    file.write_text(file.read_text().replace('engine = "toy"', f'engine = "toy"\n{keys}'))
    return fleet


def test_several_names_over_one_engine(fleet: Path) -> None:
    keys = (
        'aliases = ["gpt-4o", "org/other"]\n'
        "presets.short = { max_tokens = 2 }\n"
        "presets.free = { default = { max_tokens = 3 } }\n"
    )
    program = Program.start(configured(fleet, keys))
    try:
        counts = {}
        for name in ("toy", "gpt-4o", "org/other", "short", "free"):
            answer = program.ask({"model": name, **SAYS, "max_tokens": 5})
            assert answer.status_code == 200, answer.text
            counts[name] = answer.json()["usage"]["completion_tokens"]
        assert counts == {"toy": 5, "gpt-4o": 5, "org/other": 5, "short": 2, "free": 5}
        answer = program.ask({"model": "free", **SAYS}).json()
        assert answer["usage"]["completion_tokens"] == 3
        assert len(marked_processes(fleet)) == 1
        listed = httpx2.get(f"http://{program.address}/v1/models", timeout=30).json()["data"]
        rows = {row["id"]: row for row in listed}
        assert list(rows) == ["toy", "gpt-4o", "org/other", "short", "free"]
        assert rows["short"]["root"] == "toy" and rows["toy"]["state"] == "ready"
        assert rows["toy"]["context_length"] == 4096 and "chat/completions" in rows["toy"]["capabilities"]
        one = httpx2.get(f"http://{program.address}/v1/models/org/other", timeout=30).json()
        assert one["id"] == "org/other" and one["aliases"] == ["gpt-4o", "org/other", "short", "free"]
        assert program.ask({"model": "nobody", **SAYS}).status_code == 404
        ollama = {"model": "short:latest", "stream": False, **SAYS}
        told = httpx2.post(f"http://{program.address}/api/chat", json=ollama, timeout=30).json()
        assert (told["model"], told["eval_count"]) == ("short", 2), "a preset has its name in Ollama's API"
    finally:
        assert program.stop() == 0


def test_names_follow_a_reload(fleet: Path) -> None:
    program = Program.start(configured(fleet, 'aliases = ["old"]'))
    try:
        assert program.ask({"model": "old", **SAYS}).status_code == 200
        configured(fleet, 'aliases = ["new"]')
        assert httpx2.post(f"http://{program.admin}/reload", timeout=60).status_code == 200
        assert program.ask({"model": "new", **SAYS}).status_code == 200
        assert program.ask({"model": "old", **SAYS}).status_code == 404
    finally:
        assert program.stop() == 0


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ('aliases = ["toy"]', "toy is the model toy already"),
        ('aliases = ["a", "a"]', "a is one of the aliases of toy already"),
        ('aliases = ["../x"]', "is no name for a model"),
        ("presets.x = { model = 'y' }", "x sets model, which is the client's alone"),
        ("presets.x = { at = 2026-01-01 }", "JSON"),
        ("adapters = { sql = 'lora' }", "toy takes no LoRA adapters by name"),
    ],
)
def test_names_that_cannot_be(fleet: Path, keys: str, what: str) -> None:
    configured(fleet, keys)
    out = io.StringIO()
    status = asyncio.run(run(["check", str(fleet)], {}, io.StringIO(), out, io.StringIO()))
    assert status != 0 and what in out.getvalue(), out.getvalue()


def test_values_of_a_preset_in_a_body() -> None:
    from poorwill.engines.dialects.bodies import with_values

    body = b'{"model": "x", "top_p": 0.5, "n": 1.0e2, "temperature": 1}'
    changed = with_values(body, values={"temperature": 0}, defaults={"top_p": 0.1, "seed": [1, {"a": None}]})
    assert json.loads(changed) == {
        "model": "x",
        "top_p": 0.5,
        "n": 100.0,
        "temperature": 0,
        "seed": [1, {"a": None}],
    }
    assert b"1.0e2" in changed, "what is not changed stays as it was written"
    assert with_values(b"--form", values={"a": 1}, defaults={}) == b"--form"
