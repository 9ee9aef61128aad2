"""Disks may stall. What needs one waits; nobody else does."""

import select
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from .program import Program, write_fleet
from .stalling import stalling

OTHER = """
[models.other]
engine = "toy"
policy = { name = "fixed", idle_s = 600 }
"""
AT_ONCE_S = 5.0
"""What answers within this does not wait for a disk: a stall lasts until a test ends it."""


def asked(program: Program, model: str, *, timeout: float = 60) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return program.ask(body, timeout=timeout).status_code


@pytest.mark.parametrize(("tier", "disk"), [("cold", "logs"), ("frozen", "snapshots/frozen/toy-0")])
def test_a_stalled_disk_holds_up_one_wake(fleet: Path, tier: str, disk: str) -> None:
    ladder = '["frozen", "cold"]' if tier == "frozen" else '["cold"]'
    write_fleet(fleet, on_exit="stop", ladder=ladder)
    (fleet / "fleet.toml").write_text((fleet / "fleet.toml").read_text() + OTHER)
    program = Program.start(fleet)
    assert [asked(program, model) for model in ("toy", "other")] == [200, 200]
    assert program.operator("park").status_code == 200
    if program.status()["tier"] != tier:
        pytest.skip(f"a park ends in {program.status()['tier']} here")
    with ThreadPoolExecutor(1) as pool:
        try:
            with stalling(fleet / disk) as waits:
                woken = pool.submit(asked, program, "toy")
                assert select.select([waits], [], [], 20)[0], "the wake needs this disk"
                assert asked(program, "other", timeout=AT_ONCE_S) == 200
                for path in ("healthz", "status", "metrics"):
                    answer = httpx2.get(f"http://{program.admin}/{path}", timeout=AT_ONCE_S)
                    assert answer.status_code == 200
                assert not woken.done()
        except OSError as error:
            pytest.skip(f"no fanotify(7) here: {error.strerror}")
        assert woken.result() == 200
    assert program.stop() == 0
