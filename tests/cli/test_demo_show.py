"""What `demo` shows and what it leaves alone."""

from pathlib import Path

import pytest
from tests.conftest import Poorwill

from poorwill.compose.demo.fleet import demo_fleet
from poorwill.compose.demo.progress import Show
from poorwill.compose.demo.replay import fixed_prompt
from poorwill.compose.demo.report import ServedWay, verdict
from poorwill.core.entries import PhaseSpan, WakeEnded
from poorwill.core.words import Phase, ReplicaId, Tier, WakeId


def test_both_models_differ_in_their_tier_alone(tmp_path: Path) -> None:
    demo = demo_fleet(
        str(tmp_path), engine="llama.cpp", size="5m", seconds=60, env={}, tell=lambda line: None
    )
    frozen, cold = demo.models
    assert (frozen.replica.park.ladder, cold.replica.park.ladder) == ((Tier.FROZEN, Tier.COLD), (Tier.COLD,))
    assert (frozen.engine, frozen.policy.idle_us) == (cold.engine, cold.policy.idle_us)
    assert frozen.replica.max_concurrency == cold.replica.max_concurrency
    assert demo.rates[0].model is None


def test_a_short_demo_has_a_short_prompt() -> None:
    whole, short = (fixed_prompt(engine="llama.cpp", size="5m", seconds=s) for s in (60, 6))
    assert whole.startswith(short) and len(whole) == 10 * len(short)


def way(nusd: int, mean_us: int) -> ServedWay:
    return ServedWay(
        name="", paid_us=1, nusd=nusd, mean_first_token_us=mean_us, longest_first_token_us=mean_us
    )


@pytest.mark.parametrize(
    ("frozen", "cold", "gains"),
    [
        (way(75, 1_000_000), way(100, 3_000_000), True),
        (way(100, 1_000_000), way(100, 3_000_000), False),
        (way(75, 3_000_000), way(100, 3_000_000), False),
    ],
)
def test_the_verdict_is_what_was_measured(frozen: ServedWay, cold: ServedWay, gains: bool) -> None:
    told = " ".join(verdict((frozen, cold), {Tier.COLD, Tier.FROZEN}, "x" * 4_000))
    assert ("25.0% less cost, and a first token after 1 s on average, not 3 s" in told) is gains
    assert ("too fast to gain" in told) is not gains
    assert "both were parked cold" in " ".join(verdict((frozen, cold), {Tier.COLD}, ""))


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
