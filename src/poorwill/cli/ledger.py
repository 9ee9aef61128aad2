"""`poorwill ledger`: check, back up, compact and migrate the file that holds the bill."""

import argparse
import asyncio
import os
from contextlib import closing

from poorwill.cli.parsing.target import (
    DEFAULT_FILE,
    add_fleet_option,
    add_json_option,
    fleet_path,
    read_fleet,
)
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.settings import FleetSettings
from poorwill.ledger.checking import problems
from poorwill.ledger.dates import Period, between, instant, iso, period
from poorwill.ledger.schema import LEDGER_FILE, connect_writer, migrate, migrations, reading
from poorwill.ledger.upkeep import back_up, compact


def add_ledger_options(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Let a verb be told which ledger: by its fleet, or by the file itself."""
    add_fleet_option(parser, positional=positional)
    parser.add_argument("--ledger", metavar="FILE", help="a ledger file, without its fleet")


def add_period_options(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Let a verb be told which period of the ledger to look at."""
    when = parser.add_argument_group(f"period (UTC; default: {default})")
    when.add_argument("--period", metavar="P", help="2026-11, 2026-11-24 or FROM..TO")
    when.add_argument("--from", dest="begin", metavar="TIME", help="from this instant on")
    when.add_argument("--to", dest="end", metavar="TIME", help="up to this instant")


def asked_period(options: argparse.Namespace, *, last_us: int) -> Period | None:
    """Return the period that was asked for, None where none was. Raises RequestFault.

    `last_us` is the last instant the ledger knows of: where an open period ends.
    """
    if options.period is not None:
        if options.begin or options.end:
            raise RequestFault(ErrorCode.INVALID_REQUEST, "give --period or --from and --to, not both")
        return period(options.period)
    if options.begin is None and options.end is None:
        return None
    begin_us = instant(options.begin) if options.begin else 0
    end_us = instant(options.end) if options.end else max(last_us, begin_us + 1)
    return between(begin_us, end_us)


def ledger_path(options: argparse.Namespace, streams: Streams) -> str:
    """Return the ledger's path. Raises ConfigFault where the fleet cannot be read."""
    if options.ledger:
        return str(options.ledger)
    settings = fleet_of(options, streams)
    return os.path.join(settings.directory if settings else os.curdir, LEDGER_FILE)


def fleet_of(options: argparse.Namespace, streams: Streams) -> FleetSettings | None:
    """Return the fleet's settings, None where a ledger alone was named or lies here without a fleet."""
    if options.ledger:
        return None
    unnamed = options.fleet == DEFAULT_FILE
    if unnamed and not os.path.exists(fleet_path(options)) and os.path.exists(LEDGER_FILE):
        return None
    return read_fleet(options, streams)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["check", "backup", "compact", "migrate"], help="what to do")
    parser.add_argument("target", nargs="?", help="backup: the new file")
    parser.add_argument("--before", metavar="TIME", help="compact: drop request rows that ended before")
    add_ledger_options(parser)
    add_json_option(parser)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    path = ledger_path(options, streams)
    if (options.target is not None) != (options.action == "backup"):
        takes = "a new file to write" if options.action == "backup" else "no file; --ledger names one"
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"poorwill ledger {options.action} takes {takes}")
    actions = {"check": _check, "backup": _backup, "compact": _compact, "migrate": _migrate}
    return await asyncio.to_thread(actions[options.action], path, options, streams)


def _check(path: str, options: argparse.Namespace, streams: Streams) -> int:
    with reading(path) as db:
        found = problems(db)
    if options.json:
        streams.say_json({"ledger": path, "problems": found})
    else:
        for problem in found:
            streams.say(problem)
        if not found:
            streams.say(f"{path} is whole: spans tile, references hold, sums agree")
    return 1 if found else 0


def _backup(path: str, options: argparse.Namespace, streams: Streams) -> int:
    size_bytes = back_up(path, options.target)
    if options.json:
        streams.say_json({"ledger": path, "copy": options.target, "bytes": size_bytes})
    else:
        streams.say(f"{options.target}: {size_bytes / 1e6:.1f} MB")
    return 0


def _compact(path: str, options: argparse.Namespace, streams: Streams) -> int:
    if options.before is None:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST, "compact needs --before TIME", hint="--before 2026-10-01"
        )
    with reading(path):
        pass  # it must be there: compacting makes no ledger
    with closing(connect_writer(path)) as db:
        migrate(db, path)
        done = compact(db, before_us=instant(options.before))
    if options.json:
        streams.say_json({"ledger": path, "before": iso(done.before_us), "rows": done.rows})
    else:
        streams.say(f"{done.rows:,} request rows before {iso(done.before_us)} dropped; the bill is the same")
    return 0


def _migrate(path: str, options: argparse.Namespace, streams: Streams) -> int:
    with closing(connect_writer(path)) as db:
        ran = migrate(db, path)
    version = len(migrations())
    if options.json:
        streams.say_json({"ledger": path, "schema": version, "migrations": ran})
    else:
        streams.say(f"{path} has schema {version}; {ran} migrations ran")
    return 0


VERB = Verb(
    name="ledger",
    help="check, back up, compact or migrate the file that holds the bill",
    options=_options,
    run=_run,
    epilog="check: the file, the tiling and the sums; exit 1 if anything is wrong.\n"
    "backup FILE: a consistent copy, also while poorwill serves.\n"
    "compact --before TIME: drops old request rows; the bill stays exactly as it is, by key too.\n"
    "migrate: brings the file to this version; serve does so by itself.",
)
