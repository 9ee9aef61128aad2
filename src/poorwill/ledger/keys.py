"""API keys: made once, shown once, kept as hashes, looked up on the warm path.

A key is 256 random bits, so a plain SHA-256 of it cannot be reversed by guessing and needs no salt or
stretching. A look-up hashes what was presented, finds it in a dictionary and compares in constant time: its
timing says something about a hash that nobody can choose, and nothing about a key.
"""

import asyncio
import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import msgspec

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.ports.keys import NO_LIMITS, KeyLimits
from poorwill.core.ports.log import Log
from poorwill.ledger.costs.items import NO_KEY_NAME, NOT_RECORDED, OVERHEAD
from poorwill.ledger.schema import reading

PREFIX = "pw-"
_NOBODY = bytes(32)

OWN_WORDS = frozenset(
    {NO_KEY_NAME, NOT_RECORDED, OVERHEAD, "operator", "anonymous", "policy", "floor", "poorwill"}
)
"""What the ledger calls those who ask without a key: a key of such a name could not be told from them."""

FOLLOW_S = 1.0
"""How soon an added or revoked key is known to a running gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key as `poorwill keys list` shows it: never the key itself."""

    name: str
    hint: str
    created_us: int
    revoked_us: int | None
    expires_us: int | None
    replaced_us: int | None
    """When another secret was made for the same name; until it expires both are good."""
    limits: KeyLimits


def add_key(
    db: sqlite3.Connection,
    name: str,
    *,
    now_us: int,
    limits: KeyLimits = NO_LIMITS,
    expires_us: int | None = None,
) -> str:
    """Make a key; return its secret, which is kept nowhere. Raises RequestFault for a bad or taken name."""
    if not name.isprintable() or not name.strip() or name != name.strip() or len(name) > 100:
        hint = "up to 100 printable characters, none of them a space at either end"
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"{name[:120]!r} is no name for a key", hint=hint)
    if name.casefold() in OWN_WORDS:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{name!r} already means something in the ledger",
            hint="choose another name: a person, a customer, a program",
        )
    try:
        return _insert(db, name, now_us=now_us, limits=limits, expires_us=expires_us)
    except sqlite3.IntegrityError as error:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"there is a key named {name!r} already",
            hint=f"poorwill keys rotate {name} gives it another secret, or choose another name",
        ) from error


def _insert(
    db: sqlite3.Connection, name: str, *, now_us: int, limits: KeyLimits, expires_us: int | None
) -> str:
    secret = PREFIX + secrets.token_urlsafe(32)
    row = (name, _digest(secret.encode()), secret[: len(PREFIX) + 4], now_us, _written(limits), expires_us)
    db.execute(
        "INSERT INTO keys (name, digest, hint, created_us, limits, expires_us) VALUES (?, ?, ?, ?, ?, ?)", row
    )
    return secret


def rotate_key(db: sqlite3.Connection, name: str, *, now_us: int, overlap_us: int) -> str:
    """Make another secret for a key; the one it has stays good for a while. Raises RequestFault."""
    limits, expires_us = key_limits(db, name)
    db.execute(
        "UPDATE keys SET replaced_us = :now, expires_us = min(coalesce(expires_us, :until), :until)"
        f" WHERE {_NOW}",
        {"now": now_us, "until": now_us + overlap_us, "name": name},
    )
    return _insert(db, name, now_us=now_us, limits=limits, expires_us=expires_us)


def limit_key(db: sqlite3.Connection, name: str, *, limits: KeyLimits, expires_us: int | None) -> None:
    """Set what a key may do, and until when. Raises RequestFault if there is none."""
    what = {"limits": _written(limits), "expires": expires_us, "name": name}
    if not db.execute(f"UPDATE keys SET limits = :limits, expires_us = :expires WHERE {_NOW}", what).rowcount:
        raise _unknown(name)


def key_limits(db: sqlite3.Connection, name: str) -> tuple[KeyLimits, int | None]:
    """Return the limits of a key and when it expires. Raises RequestFault if there is none."""
    row = db.execute(f"SELECT limits, expires_us FROM keys WHERE {_NOW}", {"name": name}).fetchone()
    if row is None:
        raise _unknown(name)
    return _limits(row[0]), row[1]


def revoke_key(db: sqlite3.Connection, name: str, *, now_us: int) -> None:
    """Revoke a key; what it has spent keeps its name. Raises RequestFault if there is none."""
    done = db.execute(
        "UPDATE keys SET revoked_us = max(?, created_us) WHERE name = ? AND revoked_us IS NULL",
        (now_us, name),
    ).rowcount
    if not done:
        raise _unknown(name)


_NOW = "name = :name AND revoked_us IS NULL AND replaced_us IS NULL"


def _unknown(name: str) -> RequestFault:
    return RequestFault(
        ErrorCode.INVALID_REQUEST,
        f"there is no key named {name!r}",
        hint="poorwill keys list names them",
    )


def forget_keys(db: sqlite3.Connection) -> None:
    """Go back to a gateway without keys; operators keep theirs. Raises RequestFault while one is in use."""
    clients = "coalesce(limits ->> 'operator', 0) = 0"
    if db.execute(f"SELECT 1 FROM keys WHERE revoked_us IS NULL AND {clients}").fetchone():
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            "there are keys in use",
            hint="revoke them first; without keys anybody who can connect may ask",
        )
    db.execute(f"DELETE FROM keys WHERE {clients}")


def list_keys(db: sqlite3.Connection) -> list[KeyRow]:
    """Return every key, revoked ones too, oldest first."""
    rows = db.execute(
        "SELECT name, hint, created_us, revoked_us, expires_us, replaced_us, limits FROM keys ORDER BY id"
    )
    names = [field.name for field in fields(KeyRow)[:-1]]
    return [KeyRow(**dict(zip(names, row, strict=False)), limits=_limits(row[-1])) for row in rows]


class LedgerKeys:
    """Implements `core.ports.keys.KeyRing` and `OperatorKeys` over a ledger; `follow` keeps it up to date."""

    def __init__(self, *, path: str, now_us: Callable[[], int], log: Log, follow_s: float = FOLLOW_S) -> None:
        self._path = path
        self._now_us = now_us
        self._follow_s = follow_s
        self._log = log
        self._keys: Mapping[bytes, tuple[bytes, str]] = {}
        self._operators: Mapping[bytes, tuple[bytes, str]] = {}
        self._limits: Mapping[str, KeyLimits] = {}
        self._required = False

    def __repr__(self) -> str:
        return f"<LedgerKeys {len(self._keys)} keys, {'required' if self._required else 'open'}>"

    @property
    def required(self) -> bool:
        """Whether a request must bring a key.

        True once there was any: revoking the last key locks everybody out rather than letting everybody in.
        """
        return self._required

    def name_of(self, credential: bytes) -> str | None:
        """Return the name of the key presented, None if it is not in use."""
        return _known(self._keys, credential)

    def operator_of(self, credential: bytes) -> str | None:
        """Return the name of the operator's key presented, None if it is none, or not in use."""
        return _known(self._operators, credential)

    def is_operator(self, name: str) -> bool:
        """Return whether an operator's key of this name is in use."""
        return self.limits(name).operator

    @property
    def operators(self) -> bool:
        """Whether any operator's key is in use."""
        return bool(self._operators)

    def in_use(self, name: str) -> bool:
        """Return whether there is a key of this name that is neither revoked nor expired."""
        return name in self._limits

    def limits(self, name: str) -> KeyLimits:
        """Return what a key may do; a key that is not in use has no limits."""
        return self._limits.get(name, NO_LIMITS)

    def load(self) -> None:
        """Read the keys. Raises OperatorFault if the ledger cannot be read."""
        with reading(self._path) as db:
            rows = db.execute(
                "SELECT digest, name, revoked_us, expires_us, limits FROM keys ORDER BY id"
            ).fetchall()
        now_us = self._now_us()
        used = [row for row in rows if row[2] is None and (row[3] is None or now_us < row[3])]
        limits = {row[0]: _limits(row[4]) for row in rows}
        known = {row[0]: (row[0], row[1]) for row in used}
        self._operators = {digest: key for digest, key in known.items() if limits[digest].operator}
        self._keys = {digest: key for digest, key in known.items() if digest not in self._operators}
        self._limits = {row[1]: limits[row[0]] for row in used}  # of several secrets the last one's
        self._required = not all(each.operator for each in limits.values())

    async def follow(self) -> None:
        """Read the keys again every second until cancelled; while the ledger cannot be read, keep them."""
        failing = False
        while True:
            await asyncio.sleep(self._follow_s)
            try:
                await asyncio.to_thread(self.load)
            except Exception as error:  # whatever it is: nobody's requests end for it
                if not failing:
                    self._log.warning("keys cannot be read; the last known ones hold", why=str(error))
                failing = True
            else:
                failing = False


def _known(keys: Mapping[bytes, tuple[bytes, str]], credential: bytes) -> str | None:
    digest = _digest(credential)
    known, name = keys.get(digest, (_NOBODY, None))
    return name if hmac.compare_digest(known, digest) else None


def _written(limits: KeyLimits) -> str:
    return msgspec.json.encode(limits).decode()


def _limits(text: str) -> KeyLimits:
    found = msgspec.json.decode(text, type=KeyLimits)
    return NO_LIMITS if found == NO_LIMITS else found


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def may_do(limits: KeyLimits) -> str:
    """Return what a key may do, for people; empty if all."""
    told = ["an operator's"] if limits.operator else []
    told += [f"only {', '.join(limits.models)}"] if limits.models else []
    told += [f"{limits.requests_minute:,} requests a minute"] if limits.requests_minute else []
    told += [f"{limits.tokens_minute:,} tokens a minute"] if limits.tokens_minute else []
    told += [f"{limits.at_once:,} at once"] if limits.at_once else []
    told += [f"{limits.held:,} held"] if limits.held else []
    told += [f"priority {limits.priority}"] if limits.priority else []
    return "; ".join(told)
