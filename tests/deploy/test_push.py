"""`poorwill deploy push`, against programs in place of ssh, scp and systemctl that work on this machine."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest
from tests.conftest import Poorwill, Ran
from tests.waiting import until

from .server import Server, another, broken, write_fleet


async def push(
    poorwill: Poorwill, server: Server, built: Path, *more: str, host: str = "box", **env: str
) -> Ran:
    fleet = write_fleet(server.home, port=server.port)
    line = ("deploy", "push", host, "--file", str(built), "--fleet", str(fleet))
    return await poorwill(*line, "--binary", "poorwill", *more, **{**server.env, **env})


async def test_push_ends_when_it_serves(poorwill: Poorwill, server: Server, built: Path) -> None:
    ran = await push(poorwill, server, built)
    assert (ran.status, ran.out) == (0, "box serves\n"), ran.err
    assert server.has(built)
    assert not (server.home / "poorwill.new").exists()


async def test_a_second_push_replaces_what_runs(poorwill: Poorwill, server: Server, built: Path) -> None:
    await push(poorwill, server, built)
    first = server.pid()
    another(built)
    ran = await push(poorwill, server, built, "--json")
    assert json.loads(ran.out)["health"] == {"status": "ok", "file": "# two\n"}
    assert server.pid() != first


async def test_commands_are_shown_before_they_run(poorwill: Poorwill, server: Server, built: Path) -> None:
    dry = await push(poorwill, server, built, "--dry-run")
    assert server.pid() is None and not (server.home / "poorwill").exists()
    ran = await push(poorwill, server, built)
    assert [line.split()[1] for line in dry.out.splitlines()] == ["scp", "ssh", "ssh", "ssh"]
    assert ran.err == dry.out


async def test_user_unit_is_restarted(poorwill: Poorwill, server: Server, built: Path) -> None:
    assert (await push(poorwill, server, built, "--user")).status == 0
    assert (server.home / "systemctl.log").read_text() == "--user restart poorwill\n"


async def test_unreachable_host_changes_nothing(poorwill: Poorwill, server: Server, built: Path) -> None:
    ran = await push(poorwill, server, built, host="nowhere")
    assert ran.status == 7
    assert "scp failed with status 255: ssh: connect to host nowhere" in ran.err
    assert "nothing has changed there" in ran.err
    assert "mv" not in ran.err


async def test_missing_unit_says_what_is_in_place(poorwill: Poorwill, server: Server, built: Path) -> None:
    ran = await push(poorwill, server, built, "--unit", "owl")
    assert ran.status == 7
    assert "Unit owl.service not found" in ran.err
    assert "the new file is in place; on the server: journalctl -u owl" in ran.err


async def test_file_that_never_serves_fails(poorwill: Poorwill, server: Server, built: Path) -> None:
    broken(built)
    ran = await push(poorwill, server, built, "--within-s", "2")
    (server.home / "pid").unlink()
    assert ran.status == 4
    assert re.search("box does not serve after 2 s: (ConnectionRefusedError|no answer)", ran.err), ran.err
    assert "to go back, push the file you had before" in ran.err


async def test_draining_is_not_serving(poorwill: Poorwill, server: Server, built: Path) -> None:
    ran = await push(poorwill, server, built, "--within-s", "8", SERVER_DRAINS="1000")
    assert ran.status == 4
    assert '"draining"' in ran.err


async def test_cancelled_push_leaves_nothing(poorwill: Poorwill, server: Server, built: Path) -> None:
    server.copy_for_ever()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(push(poorwill, server, built))
        pid = await until(server.copying)
        task.cancel()
    assert not os.path.exists(f"/proc/{pid}")  # noqa: ASYNC240


@pytest.mark.parametrize("host", ["box;reboot", "-oProxyCommand=reboot", "a b", "$(reboot)"])
async def test_host_a_shell_could_misread(poorwill: Poorwill, server: Server, built: Path, host: str) -> None:
    fleet = write_fleet(server.home)
    line = ["deploy", "push", "--file", str(built), "--fleet", str(fleet), "--", host]
    ran = await poorwill(*line, **server.env)
    assert ran.status == 2
    assert "a shell or systemd may take for something else" in ran.err


async def test_missing_file_and_unknown_port(
    poorwill: Poorwill, server: Server, built: Path, tmp_path: Path
) -> None:
    ran = await push(poorwill, server, tmp_path / "none")
    assert ran.status == 2 and "make it: ./dev build" in ran.err
    fleet = write_fleet(server.home, port=0)
    ran = await poorwill("deploy", "push", "box", "--fleet", str(fleet), "--file", str(built))
    assert ran.status == 2 and "admin" in ran.err


@pytest.mark.parametrize(("line", "what"), [(["push"], "HOST"), (["unit", "box"], "box")])
async def test_push_takes_a_host(poorwill: Poorwill, line: list[str], what: str) -> None:
    ran = await poorwill("deploy", *line)
    assert ran.status == 2 and what in ran.err
