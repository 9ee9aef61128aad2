"""`poorwill ledger`: check, back up, compact and migrate the file that holds the bill; look a request up."""

import asyncio
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from msgspec import Struct

from poorwill.bill.request_lookup import RequestDocument, find_request
from poorwill.cli.parsing.exit_status import FINDING
from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.ledger import LedgerOptions
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb, verb_family
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import duration, size, table
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions(UpkeepOptions):
    """The options of `poorwill ledger request`."""

    request: Annotated[
        str, Option("the id that the client was given as x-request-id", argument=True, metavar="ID")
    ]


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
    path = (await options.ledger.here(streams.env)).path(streams.env)
    found = await streams.interruptible(partial(_problems, path))
    if options.json:
        streams.say_json(CheckedDocument(ledger=path, problems=found))
    else:
        streams.say(*found or [f"{path} is whole: spans tile, references hold, sums agree"])
    return FINDING if found else 0


def _problems(path: str, streams: Streams) -> list[str]:
    with reading(path) as db:
        return problems(db, path, tell=streams.show_progress)


async def _backup(options: BackupOptions, streams: Streams) -> int:
    path = (await options.ledger.here(streams.env)).path(streams.env)
    size_bytes = await asyncio.to_thread(back_up, path, options.target)
    if options.json:
        streams.say_json(BackupDocument(ledger=path, copy=options.target, size_bytes=size_bytes))
    else:
        streams.say(f"{options.target}: {size(size_bytes)}")
    return 0


async def _compact(options: CompactOptions, streams: Streams) -> int:
    path = options.ledger.path(streams.env)
    done = await streams.interruptible(partial(_compacted, path, instant(options.before)))
    before = iso(done.before_us)
    if options.json:
        streams.say_json(CompactedDocument(ledger=path, before=before, rows=done.rows))
    else:
        streams.say(f"{done.rows:,} request rows before {before} dropped; the bill is the same")
    return 0


def _compacted(path: str, before_us: int, streams: Streams) -> Compacted:
    with reading(path):
        pass  # compacting makes no ledger: it must be there
    with closing(connect_writer(path)) as db:
        migrate(db, path)
        return compact(db, before_us=before_us, tell=streams.show_progress)


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


async def _request(options: RequestOptions, streams: Streams) -> int:
    path = (await options.ledger.here(streams.env)).path(streams.env)
    found = await asyncio.to_thread(_found, path, options.request)
    if options.json:
        streams.say_json(found)
        return 0
    held_us = (found.ended_us if found.leased_us is None else found.leased_us) - found.arrived_us
    tokens = ["-" if count is None else str(count) for count in (found.tokens_in, found.tokens_out)]
    rows = [
        ("request", f"{found.request}, of {found.key or 'nobody named'}, for {found.path}"),
        ("model", f"{found.model}, served by {found.bridge or found.replica or 'nobody'}"),
        ("outcome", f"{found.outcome}, status {found.status}"),
        ("arrived", iso(found.arrived_us)),
        ("took", f"{duration(found.ended_us - found.arrived_us)}, held for {duration(held_us)}"),
        ("tokens", "{} in, {} out".format(*tokens)),
    ]
    if found.wake is not None:
        rows.append(("wake", f"{found.wake.wake}, began {iso(found.wake.began_us)}"))
        rows += [("failure", found.wake.failure)] if found.wake.failure else []
    streams.say(*table(rows))
    return 0


def _found(path: str, request: str) -> RequestDocument:
    with reading(path) as db:
        found = find_request(db, request)
    if found is None:
        what = f"the ledger has no request {request!r}"
        hint = "a row is written within a second of the answer, and dropped by `ledger compact`"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint=hint)
    return found


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
        "request": (
            "show one request by its id, with the reason if its wake failed",
            new_verb(RequestOptions, _request, RequestDocument),
        ),
        "migrate": (
            "bring the file to this version, as serve does by itself",
            new_verb(UpkeepOptions, _migrate, MigratedDocument),
        ),
    }
)
