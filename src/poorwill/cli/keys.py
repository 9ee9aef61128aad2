"""`poorwill keys`: add, list and revoke the API keys of a fleet; a running gateway follows."""

import argparse
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import TypeVar

from poorwill.cli.ledger import add_ledger_options, ledger_path
from poorwill.cli.parsing.target import add_json_option
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.compose.clock import SystemClock
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import table
from poorwill.ledger.dates import timestamp
from poorwill.ledger.keys import KeyRow, add_key, forget_keys, list_keys, revoke_key
from poorwill.ledger.schema import connect_writer, fault, migrate, reading

T = TypeVar("T")

_NAME_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "add": "whom the key is for, as the bill shall name them: poorwill keys add ann",
        "revoke": "which key: poorwill keys list names them",
    }
)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["add", "list", "revoke", "forget"], help="what to do")
    parser.add_argument("name", nargs="?", help="the key's name: a person, a customer, a program")
    add_ledger_options(parser)
    add_json_option(parser)


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    path = ledger_path(options, streams)
    named = options.action in ("add", "revoke")
    if named != (options.name is not None):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"poorwill keys {options.action} takes {'a name' if named else 'no name'}",
            hint=_NAME_HINTS.get(options.action),
        )
    now_us = SystemClock.started().now_us()
    if options.action == "add":
        secret = _write(path, lambda db: add_key(db, options.name, now_us=now_us))
        _say_added(options.name, secret, options, streams)
    elif options.action == "revoke":
        _write(path, lambda db: revoke_key(db, options.name, now_us=now_us))
        _say_done(f"{options.name} is revoked", options, streams)
    elif options.action == "forget":
        _write(path, forget_keys)
        _say_done("no key is asked for any more", options, streams)
    else:
        with reading(path) as db:
            _say_keys(list_keys(db), options, streams)
    return 0


def _write(path: str, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do one thing to the ledger in a transaction, making the file where there is none."""
    with closing(connect_writer(path)) as db:
        migrate(db, path)
        try:
            db.execute("BEGIN IMMEDIATE")
            done = work(db)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise fault(path, error) from error
    return done


def _say_added(name: str, secret: str, options: argparse.Namespace, streams: Streams) -> None:
    if options.json:
        streams.say_json({"name": name, "key": secret})
        return
    streams.say(secret)
    streams.tell(f"This is the key of {name}. It is shown once and kept only as a hash: write it down.")
    streams.tell("Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.")


def _say_done(text: str, options: argparse.Namespace, streams: Streams) -> None:
    if options.json:
        streams.say_json({"done": text})
    else:
        streams.say(text)


def _say_keys(keys: list[KeyRow], options: argparse.Namespace, streams: Streams) -> None:
    if options.json:
        streams.say_json(
            [
                {
                    "name": key.name,
                    "hint": key.hint,
                    "created": timestamp(key.created_us),
                    "revoked": None if key.revoked_us is None else timestamp(key.revoked_us),
                }
                for key in keys
            ]
        )
        return
    if not keys:
        streams.say("no keys: the gateway asks for none and binds to loopback only")
        return
    rows = [("NAME", "KEY", "CREATED", "REVOKED")]
    for key in keys:
        revoked = "" if key.revoked_us is None else timestamp(key.revoked_us)
        rows.append((key.name, f"{key.hint}...", timestamp(key.created_us), revoked))
    for line in table(rows):
        streams.say(line)


VERB = Verb(
    name="keys",
    help="add, list or revoke API keys; stored as hashes, shown once",
    options=_options,
    run=_run,
    epilog="With any key the gateway asks for one; without, it serves loopback only. A running gateway\n"
    "follows within a second. `forget` goes back to a fleet without keys, once all are revoked.",
)
