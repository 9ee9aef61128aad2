"""How a verb is told its fleet, and what it says of one that nobody serves."""

from pathlib import Path

import pytest
from tests.conftest import Poorwill


async def test_nobody_serving_hints_at_serve(poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[models.x]\nengine = "toy"\n')
    ran = await poorwill("status", "--fleet", str(tmp_path))
    assert ran.status == 4
    assert f"start it with: poorwill serve {tmp_path}\n" in ran.err


async def test_commands_in_hints_can_be_pasted(poorwill: Poorwill, tmp_path: Path) -> None:
    ran = await poorwill("init", str(tmp_path / "my fleet"))
    assert ran.out.endswith(f"next: poorwill serve '{tmp_path}/my fleet'\n")
    ran = await poorwill("status", "--fleet", str(tmp_path / "my fleet"))
    assert f"start it with: poorwill serve '{tmp_path}/my fleet'\n" in ran.err


@pytest.mark.parametrize("verb", ["check", "serve", "status", "bill", "doctor"])
async def test_a_fleet_needs_no_option(verb: str, poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[models.x]\nengine = "toi"\n')
    plain = await poorwill(verb, str(tmp_path))
    option = await poorwill(verb, "--fleet", str(tmp_path))
    both = await poorwill(verb, "--fleet", str(tmp_path), str(tmp_path))
    assert (plain.status, plain.out, plain.err) == (option.status, option.out, option.err)
    assert (both.status, both.out, both.err) == (option.status, option.out, option.err)
    assert "models.x.engine: 'toi' is not known" in plain.out + plain.err
    two = await poorwill(verb, "--fleet", str(tmp_path), "elsewhere")
    assert two.status == 2
    assert f"two fleets are named, {tmp_path} and elsewhere" in two.err
