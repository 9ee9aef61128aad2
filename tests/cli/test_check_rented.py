"""`poorwill check` on a fleet with a rented machine: what people and programs are told of it."""

import io
import json
from pathlib import Path

from poorwill.cli.run import run

FLEET = """\
[fleet]
exit_s = 900
[models.big]
engine = "vllm"
ladder = ["hibernated", "cold"]
park_limit_s = 900
cloud = { provider = "hyperstack", id = "12345", url = "http://10.0.0.7:8000", key_env = "CLOUD_KEY" }
[[rates]]
active_usd_h = 3.20
"""


async def check(file: Path, *words: str) -> tuple[int, str]:
    out = io.StringIO()
    env = {"CLOUD_KEY": "k", "PATH": "/nonexistent"}
    status = await run(["check", str(file), *words], env, io.StringIO(), out, io.StringIO())
    return status, out.getvalue()


async def test_check_says_which_machine_a_model_is_on(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    status, out = await check(file)
    assert status == 0 and "big: vllm on hyperstack 12345, ladder hibernated > cold" in out
    status, out = await check(file, "--json")
    (model,) = json.loads(out)["models"]
    assert status == 0 and model["machine"] == "hyperstack 12345"
    assert json.loads(out)["warnings"] == [], "an engine that nothing here starts need not be here"


async def test_check_says_where_an_engine_elsewhere_is(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[models.big]\nurl = "https://gpu.example/a/v1"\n[[rates]]\nactive_usd_h = "$2"\n')
    status, out = await check(file)
    assert status == 0 and "big: at https://gpu.example/a, always ready, wake budget" in out
    (model,) = json.loads((await check(file, "--json"))[1])["models"]
    assert model["machine"] == "https://gpu.example/a"
