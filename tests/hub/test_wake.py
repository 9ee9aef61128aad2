"""A request for a model that is given by name: its first wake downloads it; then `pull` and `models`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Poorwill
from tests.e2e.program import Program
from tests.waiting import wait_until

from poorwill.engines.weights.gguf_model import make_model

from .fake_hub import FakeHub, serving

pytest.importorskip("huggingface_hub")
FLEET = """
[models.small]
engine = "llama.cpp"
path = "hf:org/name:Q8_0"
context = 512
ladder = ["cold"]
"""


def variables(hub: FakeHub, home: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(home / "cache"), "HOME": str(home)}


def anatomy(fleet: Path) -> str:
    words = [sys.executable, "-m", "poorwill", "anatomy", "small", "--json", "--fleet", str(fleet)]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_first_wake_downloads(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m.gguf").read_bytes()
    (tmp_path / "fleet.toml").write_text(FLEET)
    with serving(FakeHub(files={"small.Q8_0.gguf": model})) as hub:
        program = Program.start(tmp_path, **variables(hub, tmp_path))
        try:
            body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
            assert program.ask(body).status_code == 200
            wait_until(lambda: "download" in anatomy(tmp_path))  # its row may come after the answer
            assert program.operator("park", "small").status_code == 200
            sent = hub.sent
            assert program.ask(body).status_code == 200
            assert hub.sent == sent == len(model)
        finally:
            assert program.stop() == 0


async def test_pull_list_and_remove(poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    model = make_model(tmp_path / "m.gguf").read_bytes()
    fleet = ("--fleet", str(tmp_path))
    with serving(FakeHub(files={"small.Q8_0.gguf": model})) as hub:
        env = variables(hub, tmp_path)
        checked = await poorwill("check", str(tmp_path), **env)
        assert checked.status == 0 and "poorwill pull small" in checked.out, checked.out
        pulled = await poorwill("pull", *fleet, **env)
        assert pulled.status == 0 and "small.Q8_0.gguf" in pulled.out, pulled.err
    assert "is not on disk" not in (await poorwill("check", str(tmp_path), **env)).out
    listed = json.loads((await poorwill("models", "--json", *fleet, **env)).out)
    (one,) = listed["models"]
    assert (one["name"], one["cache"], one["models"]) == ("hf:org/name", "hub", ["small"])
    assert one["size_bytes"] == len(model) and one["used_us"] > 0
    used = await poorwill("models", "--remove", "hf:org/name", *fleet, **env)
    assert used.status == 3 and "used by small" in used.err
    gone = await poorwill("models", "--remove", "hf:org/name", "--fleet", str(tmp_path / "none"), **env)
    assert gone.status == 0 and "removed hf:org/name" in gone.out
    assert "no models" in (await poorwill("models", *fleet, **env)).out
    assert (await poorwill("models", "--remove", "x", *fleet, **env)).status == 2


async def test_pull_says_what_it_cannot_have(poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    unknown = await poorwill("pull", "nobody", "--fleet", str(tmp_path))
    assert unknown.status == 2 and "no model 'nobody'" in unknown.err
    offline = await poorwill("pull", "small", "--fleet", str(tmp_path), HF_HUB_OFFLINE="1")
    assert offline.status != 0 and "offline" in offline.err
