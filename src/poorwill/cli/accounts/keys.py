"""`poorwill keys`: add, list and revoke the API keys of a fleet; a running gateway follows."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from msgspec import Struct

from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.ledger import LedgerOptions
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb, verb_family
from poorwill.compose.clock import SystemClock
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import table
from poorwill.core.settings.loopback import is_loopback
from poorwill.ledger.dates import timestamp
from poorwill.ledger.keys import KeyRow, add_key, forget_keys, list_keys, revoke_key
from poorwill.ledger.schema import connect_writer, fault, migrate, reading

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysOptions:
    """The options of `poorwill keys list` and `keys forget`."""

    ledger: LedgerOptions = field(default_factory=LedgerOptions)
    json: JsonOption = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AddKeyOptions(KeysOptions):
    """The options of `poorwill keys add`."""

    name: Annotated[str, Option("a person, a customer, a program: as the bill shall name it", argument=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeKeyOptions(KeysOptions):
    """The options of `poorwill keys revoke`."""

    name: Annotated[str, Option("as poorwill keys list shows it", argument=True, values=Values.KEYS)]


class NewKeyDocument(Struct, frozen=True, kw_only=True):
    """A key that was just made. It is shown once."""

    name: str
    key: str


class DoneDocument(Struct, frozen=True, kw_only=True):
    """What was done."""

    done: str


class KeyListed(Struct, frozen=True, kw_only=True):
    """A key; `hint` is how it begins."""

    name: str
    hint: str
    created: str
    revoked: str | None


class KeysDocument(Struct, frozen=True, kw_only=True):
    """All keys of a ledger."""

    keys: tuple[KeyListed, ...]


async def _add(options: AddKeyOptions, streams: Streams) -> int:
    path, now_us = options.ledger.path(streams.env), SystemClock.started().now_us()
    secret = _write(path, lambda db: add_key(db, options.name, now_us=now_us))
    if options.json:
        streams.say_json(NewKeyDocument(name=options.name, key=secret))
        return 0
    streams.say(secret)
    streams.tell(f"This is the key of {options.name}. Write it down: it is shown once and kept as a hash.")
    streams.tell("Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.")
    return 0


async def _revoke(options: RevokeKeyOptions, streams: Streams) -> int:
    path, now_us = options.ledger.path(streams.env), SystemClock.started().now_us()
    _write(path, lambda db: revoke_key(db, options.name, now_us=now_us))
    return _say_done(f"{options.name} is revoked", options, streams)


async def _forget(options: KeysOptions, streams: Streams) -> int:
    settings = options.ledger.settings(streams.env)
    if settings is not None and not is_loopback(settings.gateway.listen.host):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"the gateway listens on {settings.gateway.listen.host}: it may only while it asks for keys",
            hint="keep the revoked keys, or let it listen on loopback first",
        )
    _write(options.ledger.path(streams.env), forget_keys)
    return _say_done("the gateway no longer asks for a key", options, streams)


async def _list(options: KeysOptions, streams: Streams) -> int:
    with reading(options.ledger.path(streams.env)) as db:
        keys = [_listed(key) for key in list_keys(db)]
    if options.json:
        streams.say_json(KeysDocument(keys=tuple(keys)))
    elif not keys:
        streams.say("no keys: the gateway asks for none and binds to loopback only")
    else:
        rows = [(key.name, f"{key.hint}...", key.created, key.revoked or "") for key in keys]
        streams.say(*table([("NAME", "KEY", "CREATED", "REVOKED"), *rows]))
    return 0


def _listed(key: KeyRow) -> KeyListed:
    revoked = None if key.revoked_us is None else timestamp(key.revoked_us)
    return KeyListed(name=key.name, hint=key.hint, created=timestamp(key.created_us), revoked=revoked)


def _write(path: str, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do one thing to the ledger in a transaction; make the file if there is none."""
    with closing(connect_writer(path)) as db:
        migrate(db, path)
        try:
            db.execute("BEGIN IMMEDIATE")
            done = work(db)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise fault(path, error) from error
    return done


def _say_done(text: str, options: KeysOptions, streams: Streams) -> int:
    if options.json:
        streams.say_json(DoneDocument(done=text))
    else:
        streams.say(text)
    return 0


VERB = verb_family(
    {
        "add": ("add a key and print it, once", new_verb(AddKeyOptions, _add, NewKeyDocument)),
        "list": ("list the keys", new_verb(KeysOptions, _list, KeysDocument)),
        "revoke": ("make a key invalid, at once", new_verb(RevokeKeyOptions, _revoke, DoneDocument)),
        "forget": (
            "ask for no key any more, once all are revoked",
            new_verb(KeysOptions, _forget, DoneDocument),
        ),
    },
    epilog="With any key the gateway asks for one; without, it serves loopback only. A running gateway\n"
    "follows within a second.",
)
