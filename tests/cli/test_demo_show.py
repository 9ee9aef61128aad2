"""What `demo` shows and what it leaves alone."""

from pathlib import Path

from tests.conftest import Poorwill

from poorwill.compose.demo.progress import Show
from poorwill.core.entries import PhaseSpan, WakeEnded
from poorwill.core.words import Phase, ReplicaId, WakeId


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
