"""The metrics: what the journal tells of is counted, by kind and model."""

from poorwill.core.entries import Alive, Noted
from poorwill.core.words import ModelName
from poorwill.fleet.journal import Journal
from poorwill.telemetry.metrics import GatewayMetrics


class NoReplicas:
    def status(self) -> tuple[()]:
        return ()


class Nowhere:
    unavailable = ""

    def post(self, entries: object) -> None:
        pass

    async def record(self, entries: object) -> None:
        pass


def test_a_jump_of_the_bill_and_a_tripped_limit_are_counted_and_nothing_else_is() -> None:
    metrics = GatewayMetrics()
    journal = Journal(ledger=Nowhere(), listeners=(metrics.told,))
    journal.post([Noted(at_us=1, kind="spend_jump", model=ModelName("m"), text="jumps")])
    journal.post([Noted(at_us=2, kind="spend_tripped"), Noted(at_us=3, kind="spend_tripped")])
    journal.post([Alive(at_us=4)])
    lines = metrics.exposition(NoReplicas()).splitlines()
    assert [line for line in lines if line.startswith("poorwill_notes_total")] == [
        'poorwill_notes_total{kind="spend_jump",model="m"} 1',
        'poorwill_notes_total{kind="spend_tripped",model=""} 2',
    ]
