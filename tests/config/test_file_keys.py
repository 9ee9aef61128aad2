"""Keys follow from the settings of core: each has a name, a unit and a meaning."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from poorwill.config.file_keys import file_tables, key_table
from poorwill.config.meanings import Meanings
from poorwill.config.problems import FileProblems, Location
from poorwill.config.values.containers import KeyTable, ListReader
from poorwill.core.settings.notation import FileKey, Mark, OrZero


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Settings whose keys stand in the table around them."""

    pause_us: OrZero = 0
    """How long to pause."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Settings with one key of each unit."""

    inner: Annotated[Inner, Mark.SPREAD] = field(default_factory=Inner)
    day_nusd: int | None = None
    """Dollars
    a day."""
    body_bytes: int = 0
    """A size."""
    kind: Annotated[Literal["a", "b"], FileKey("which")] = "a"
    """Which one."""
    made: Annotated[str, Mark.NOT_A_KEY] = ""


def tables() -> list[KeyTable]:
    found, waiting = [], [table.keys for table in file_tables().values() if table.name != "defaults"]
    while waiting:
        table = waiting.pop()
        found.append(table)
        readers = [key.reader for key in table.keys.values()]
        inner = [reader.of if isinstance(reader, ListReader) else reader for reader in readers]
        waiting += [reader for reader in inner if isinstance(reader, KeyTable)]
    return found


def test_keys_follow_from_attributes() -> None:
    table = key_table(Outer, Meanings())
    assert list(table.keys) == ["pause_s", "day_usd", "body", "which"]
    assert table.keys["day_usd"].meaning == "Dollars a day."
    raw = {"pause_s": 2, "day_usd": "0.5", "body": "1 KiB", "which": "b"}
    made = table.read(raw, Location((), FileProblems()))
    assert made == Outer(inner=Inner(pause_us=2_000_000), day_nusd=500_000_000, body_bytes=1024, kind="b")
    assert table.read({}, Location((), FileProblems())) == Outer()


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.makes.__name__)
def test_every_key_has_a_meaning(table: KeyTable) -> None:
    reached = [key.into for key in table.keys.values()]
    assert len(reached) == len(set(reached))
    for key in table.keys.values():
        assert key.meaning.endswith("."), key.name
