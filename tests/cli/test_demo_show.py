"""What `demo` shows and what it leaves alone."""

from pathlib import Path

from tests.conftest import Poorwill

from poorwill.compose.demo.fleet import demo_fleet
from poorwill.compose.demo.progress import Show
from poorwill.compose.demo.report import alternatives
from poorwill.core.entries import PhaseSpan, WakeEnded
from poorwill.core.words import SECOND_US, Phase, ReplicaId, WakeId


async def test_alternatives_have_the_same_limit(tmp_path: Path) -> None:
    """Eight requests of a second at once, four at a time: even a replica that always runs lets four wait."""
    demo = demo_fleet(
        str(tmp_path), engine="llama.cpp", size="5m", seconds=60, env={}, tell=lambda line: None
    )
    rows = [(0, 0, SECOND_US, 200)] * 8
    always, cold = alternatives(demo, rows, 3 * SECOND_US, 0, 60 * SECOND_US)
    assert demo.models[0].replica.max_concurrency == 4
    assert always.longest_wait_us == SECOND_US and always.active_us == 60 * SECOND_US
    assert cold.longest_wait_us == 4 * SECOND_US and cold.nusd < always.nusd


async def test_a_demo_that_cannot_write(poorwill: Poorwill, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = await poorwill("demo", "--dir", str(tmp_path / "file" / "demo"))
    assert ran.status == 2
    assert "cannot be used: Not a directory" in ran.err and "--dir" in ran.err


async def test_a_demo_overwrites_no_other_fleet(poorwill: Poorwill, tmp_path: Path) -> None:
    mine = tmp_path / "fleet.toml"
    mine.write_text("# my own\n")
    ran = await poorwill("demo", "--dir", str(tmp_path))
    assert ran.status != 0
    assert "is no demo of ours; nothing was written" in ran.err
    assert mine.read_text() == "# my own\n"


def test_pieces_of_a_phase_are_summed() -> None:
    told: list[str] = []
    pieces = (
        (Phase.WEIGHTS, 0, 6_000),
        (Phase.CONTEXT, 6_000, 7_000),
        (Phase.WEIGHTS, 7_000, 11_000),
    )
    Show(write=told.append, quiet=False).entry(
        WakeEnded(
            wake=WakeId("w"),
            replica=ReplicaId("r"),
            at_us=11_000,
            ok=True,
            anatomy=tuple(
                PhaseSpan(phase=phase, began_us=began, ended_us=ended) for phase, began, ended in pieces
            ),
        )
    )
    assert told[-1].endswith(": weights 10 ms, context 1 ms")
