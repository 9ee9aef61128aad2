"""`poorwill ledger`: check, back up, compact and migrate the file that holds the bill."""

import asyncio
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Struct

from poorwill.cli.parsing.exit_status import FINDING
from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.ledger import LedgerOptions
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb, verb_family
from poorwill.core.format import size
from poorwill.ledger.checking import problems
from poorwill.ledger.dates import instant, iso
from poorwill.ledger.schema import connect_writer, migrate, migrations, reading
from poorwill.ledger.upkeep import Compacted, back_up, compact


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepOptions:
    """The options of `poorwill ledger check` and `ledger migrate`."""

    ledger: LedgerOptions = field(default_factory=LedgerOptions)
    json: JsonOption = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions(UpkeepOptions):
    """The options of `poorwill ledger backup`."""

    target: Annotated[
        str, Option("the new file to write", argument=True, metavar="FILE", values=Values.FILES)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactOptions(UpkeepOptions):
    """The options of `poorwill ledger compact`."""

    before: Annotated[str, Option("drop request rows that ended before, such as 2026-10-01", metavar="TIME")]


class CheckedDocument(Struct, frozen=True, kw_only=True):
    """What is wrong with a ledger."""

    ledger: str
    problems: list[str]


class BackupDocument(Struct, frozen=True, kw_only=True):
    """A copy of a ledger."""

    ledger: str
    copy: str
    size_bytes: int


class CompactedDocument(Struct, frozen=True, kw_only=True):
    """What was dropped from a ledger."""

    ledger: str
    before: str
    rows: int


class MigratedDocument(Struct, frozen=True, kw_only=True):
    """The version that a ledger has now."""

    ledger: str
    schema: int
    migrations: int


async def _check(options: UpkeepOptions, streams: Streams) -> int:
    path = options.ledger.path(streams.env)
    found = await asyncio.to_thread(_problems, path)
    if options.json:
        streams.say_json(CheckedDocument(ledger=path, problems=found))
    else:
        streams.say(*found or [f"{path} is whole: spans tile, references hold, sums agree"])
    return FINDING if found else 0


def _problems(path: str) -> list[str]:
    with reading(path) as db:
        return problems(db, path)


async def _backup(options: BackupOptions, streams: Streams) -> int:
    path = options.ledger.path(streams.env)
    size_bytes = await asyncio.to_thread(back_up, path, options.target)
    if options.json:
        streams.say_json(BackupDocument(ledger=path, copy=options.target, size_bytes=size_bytes))
    else:
        streams.say(f"{options.target}: {size(size_bytes)}")
    return 0


async def _compact(options: CompactOptions, streams: Streams) -> int:
    path = options.ledger.path(streams.env)
    done = await asyncio.to_thread(_compacted, path, instant(options.before))
    before = iso(done.before_us)
    if options.json:
        streams.say_json(CompactedDocument(ledger=path, before=before, rows=done.rows))
    else:
        streams.say(f"{done.rows:,} request rows before {before} dropped; the bill is the same")
    return 0


def _compacted(path: str, before_us: int) -> Compacted:
    with reading(path):
        pass  # compacting makes no ledger: it must be there
    with closing(connect_writer(path)) as db:
        migrate(db, path)
        return compact(db, before_us=before_us)


async def _migrate(options: UpkeepOptions, streams: Streams) -> int:
    path = options.ledger.path(streams.env)
    with closing(connect_writer(path)) as db:
        ran = migrate(db, path)
    version = len(migrations())
    if options.json:
        streams.say_json(MigratedDocument(ledger=path, schema=version, migrations=ran))
    else:
        streams.say(f"{path} has schema {version}; {ran} migrations ran")
    return 0


VERB = verb_family(
    {
        "check": (
            "check the file, the tiling and the sums; exit 1 if anything is wrong",
            new_verb(UpkeepOptions, _check, CheckedDocument),
        ),
        "backup": (
            "write a consistent copy, also while poorwill serves",
            new_verb(BackupOptions, _backup, BackupDocument),
        ),
        "compact": (
            "drop old request rows; the bill stays exactly as it is",
            new_verb(CompactOptions, _compact, CompactedDocument),
        ),
        "migrate": (
            "bring the file to this version, as serve does by itself",
            new_verb(UpkeepOptions, _migrate, MigratedDocument),
        ),
    }
)
