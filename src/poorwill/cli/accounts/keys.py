"""`poorwill keys`: add, limit, rotate, revoke and list the API keys of a fleet; a running gateway follows."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.ledger import LedgerOptions
from poorwill.cli.parsing.options import Group, Option, Values
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb, verb_family
from poorwill.compose.clock import SystemClock
from poorwill.config.names import own_names
from poorwill.config.values.written import natural, time_us
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.format import DAY_US, table
from poorwill.core.ports.keys import NO_LIMITS, KeyLimits
from poorwill.core.settings.addresses import is_loopback
from poorwill.ledger.dates import deadline, timestamp
from poorwill.ledger.keys import (
    KeyRow,
    add_key,
    forget_keys,
    key_limits,
    limit_key,
    list_keys,
    may_do,
    revoke_key,
    rotate_key,
)
from poorwill.ledger.schema import connect_writer, fault, migrate, reading

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysOptions:
    """The options of `poorwill keys list` and `keys forget`."""

    ledger: LedgerOptions = field(default_factory=LedgerOptions)
    json: JsonOption = False


ALL, NEVER = "all", "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    """What a key may do, and until when."""

    models: Annotated[
        tuple[str, ...],
        Option("a model it may use; repeatable; `all`", flag="--model", repeats=True, values=Values.MODELS),
    ] = ()
    requests_minute: Annotated[int | None, Option("requests a minute; 0: any number", read=natural)] = None
    tokens_minute: Annotated[int | None, Option("tokens a minute, in and out", read=natural)] = None
    at_once: Annotated[int | None, Option("requests held or in work at once", read=natural)] = None
    held: Annotated[int | None, Option("requests held at once", read=natural)] = None
    priority: Annotated[int | None, Option("among held requests the highest go first; 0 if not given")] = None
    expires: Annotated[str, Option("when it ends: a date, a time, `90d`, or `never`", metavar="TIME")] = ""

    def limits(self, before: KeyLimits) -> KeyLimits:
        """Return the limits that a key had, with those that are given."""
        numbers = ("requests_minute", "tokens_minute", "at_once", "held", "priority")
        given = {name: value for name in numbers if (value := getattr(self, name)) is not None}
        models = () if ALL in self.models else self.models or before.models
        return replace(before, models=models, **given)

    def expires_us(self, before: int | None) -> int | None:
        """Return when the key ends. Raises RequestFault."""
        if not self.expires:
            return before
        return None if self.expires == NEVER else deadline(self.expires, SystemClock.started().now_us())


@dataclass(frozen=True, slots=True, kw_only=True)
class AddKeyOptions(KeysOptions):
    """The options of `poorwill keys add`."""

    name: Annotated[str, Option("a person, a customer, a program: as the bill shall name it", argument=True)]
    operator: Annotated[bool, Option("it is for the admin listener of other machines, and for no model")] = (
        False
    )
    may: Annotated[LimitOptions, Group("what it may do")] = field(default_factory=LimitOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneKeyOptions(KeysOptions):
    """The options of `poorwill keys revoke`."""

    name: Annotated[str, Option("as poorwill keys list shows it", argument=True, values=Values.KEYS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitKeyOptions(OneKeyOptions):
    """The options of `poorwill keys limit`."""

    may: Annotated[LimitOptions, Group("what it may do")] = field(default_factory=LimitOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateKeyOptions(OneKeyOptions):
    """The options of `poorwill keys rotate`."""

    overlap_us: Annotated[
        int, Option("how long the secret it has stays good", flag="--overlap", metavar="TIME", read=time_us)
    ] = DAY_US


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
    expires: str | None
    replaced: str | None
    """When another secret was made for it."""
    limits: KeyLimits


class KeysDocument(Struct, frozen=True, kw_only=True):
    """All keys of a ledger."""

    keys: tuple[KeyListed, ...]


async def _add(options: AddKeyOptions, streams: Streams) -> int:
    now_us = SystemClock.started().now_us()
    limits, expires_us = _limits(options, NO_LIMITS, streams), options.may.expires_us(None)
    if options.operator and limits != NO_LIMITS:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "an operator's key is for no model: it has no limits")
    limits = replace(limits, operator=options.operator)
    new = partial(add_key, name=options.name, now_us=now_us, limits=limits, expires_us=expires_us)
    secret = _write(options, streams, new)
    return _say_secret(secret, options.name, options, streams)


async def _rotate(options: RotateKeyOptions, streams: Streams) -> int:
    now_us = SystemClock.started().now_us()
    new = partial(rotate_key, name=options.name, now_us=now_us, overlap_us=options.overlap_us)
    secret = _write(options, streams, new)
    ends = timestamp(now_us + options.overlap_us)
    return _say_secret(secret, options.name, options, streams, f"The one it had is good until {ends}.")


def _say_secret(secret: str, name: str, options: KeysOptions, streams: Streams, more: str = "") -> int:
    if options.json:
        streams.say_json(NewKeyDocument(name=name, key=secret))
        return 0
    streams.say(secret)
    streams.tell(f"This is the key of {name}. Write it down: it is shown once and kept as a hash.")
    streams.tell("Send it as `Authorization: Bearer KEY`; clients may write `x-api-key: KEY`.")
    if more:
        streams.tell(more)
    return 0


async def _limit(options: LimitKeyOptions, streams: Streams) -> int:
    def change(db: sqlite3.Connection) -> KeyLimits:
        before, expires_us = key_limits(db, options.name)
        limits = _limits(options, before, streams)
        limit_key(db, options.name, limits=limits, expires_us=options.may.expires_us(expires_us))
        return limits

    limits = _write(options, streams, change)
    return _say_done(f"{options.name} has {may_do(limits) or 'no limits'}", options, streams)


def _limits(options: AddKeyOptions | LimitKeyOptions, before: KeyLimits, streams: Streams) -> KeyLimits:
    """Return the limits of a key; models by their own names, as the gateway looks them up."""
    limits = options.may.limits(before)
    if limits.models == before.models or (fleet := options.ledger.settings(streams.env)) is None:
        return limits
    return replace(limits, models=own_names(limits.models, fleet.models))


async def _revoke(options: OneKeyOptions, streams: Streams) -> int:
    now_us = SystemClock.started().now_us()
    _write(options, streams, partial(revoke_key, name=options.name, now_us=now_us))
    return _say_done(f"{options.name} is revoked", options, streams)


async def _forget(options: KeysOptions, streams: Streams) -> int:
    settings = options.ledger.settings(streams.env)
    if settings is not None and not is_loopback(settings.gateway.listen.host):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"the gateway listens on {settings.gateway.listen.host}: it may only while it asks for keys",
            hint="keep the revoked keys, or let it listen on loopback first",
        )
    _write(options, streams, forget_keys)
    return _say_done("the gateway no longer asks for a key", options, streams)


async def _list(options: KeysOptions, streams: Streams) -> int:
    with reading((await options.ledger.here(streams.env)).path(streams.env)) as db:
        keys = [_listed(key) for key in list_keys(db)]
    if options.json:
        streams.say_json(KeysDocument(keys=tuple(keys)))
    elif not keys:
        streams.say("no keys: the gateway asks for none and binds to loopback only")
    else:
        rows = [(key.name, f"{key.hint}...", key.created, _ended(key), may_do(key.limits)) for key in keys]
        streams.say(*table([("NAME", "KEY", "CREATED", "ENDS", "LIMITS"), *rows]))
    return 0


def _listed(key: KeyRow) -> KeyListed:
    revoked, expires, replaced = (
        None if at_us is None else timestamp(at_us)
        for at_us in (key.revoked_us, key.expires_us, key.replaced_us)
    )
    return KeyListed(
        name=key.name,
        hint=key.hint,
        created=timestamp(key.created_us),
        revoked=revoked,
        expires=expires,
        replaced=replaced,
        limits=key.limits,
    )


def _ended(key: KeyListed) -> str:
    if key.revoked:
        return f"revoked {key.revoked}"
    return f"{'replaced, ' if key.replaced else ''}expires {key.expires}" if key.expires else ""


def _write(options: KeysOptions, streams: Streams, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do one thing to the ledger in a transaction; make the file if there is none."""
    path = options.ledger.path(streams.env)
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
        "limit": ("change what a key may do", new_verb(LimitKeyOptions, _limit, DoneDocument)),
        "rotate": ("give a key another secret", new_verb(RotateKeyOptions, _rotate, NewKeyDocument)),
        "revoke": ("make a key invalid, within a second", new_verb(OneKeyOptions, _revoke, DoneDocument)),
        "forget": (
            "ask for no key any more, once all are revoked",
            new_verb(KeysOptions, _forget, DoneDocument),
        ),
    },
    epilog="With any key the gateway asks for one; without, it serves loopback only. A running gateway\n"
    "follows within a second.",
)
