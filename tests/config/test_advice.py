"""Warnings about what is allowed but probably not meant; a good file has none."""

import pytest

from poorwill.config.rules.advice import advice

from .conftest import Write, read

QUIET = """\
[models.a]
engine = "toy"
ladder = ["frozen", "cold"]
[[rates]]
active_usd_h = 1
"""


def warned(write: Write, text: str) -> list[str]:
    return [f"{one.where}: {one.what}" for one in advice(read(write(text)))]


def test_a_well_made_file_draws_no_remark(write: Write) -> None:
    assert warned(write, QUIET) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (QUIET.replace('["frozen", "cold"]', '["cold"]'), "models.a.ladder"),
        (QUIET.partition("[[rates]]")[0], "rates"),
        (QUIET + "[fleet]\nmemory = 5", "models.a.memory"),
        (QUIET + "parked_usd_h = { frozen = 2 }", "rates[0].parked_usd_h.frozen"),
        (QUIET + "[gateway]\nheartbeat_s = 60", "gateway.heartbeat_s"),
        (QUIET + "[gateway]\ncommit_after_s = 90", "gateway.commit_after_s"),
        (QUIET + "[defaults]\nhold = { age_s = 299 }", "models.a.hold.age_s"),
    ],
)
def test_each_oddity_is_one_warning(write: Write, text: str, where: str) -> None:
    (found,) = warned(write, text)
    assert found.startswith(f"{where}: ")


def test_a_floor_allows_a_short_ladder(write: Write) -> None:
    text = QUIET.replace('ladder = ["frozen", "cold"]', "floor = true")
    assert warned(write, text) == []
