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
from collections.abc import Mapping
from dataclasses import dataclass

from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
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


def add_key(db: sqlite3.Connection, name: str, *, now_us: int) -> str:
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
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        db.execute(
            "INSERT INTO keys (name, digest, hint, created_us) VALUES (?, ?, ?, ?)",
            (name, _digest(secret.encode()), secret[: len(PREFIX) + 4], now_us),
        )
    except sqlite3.IntegrityError as error:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"there is a key named {name!r} already",
            hint=f"poorwill keys revoke {name} first, or choose another name",
        ) from error
    return secret


def revoke_key(db: sqlite3.Connection, name: str, *, now_us: int) -> None:
    """Revoke a key; what it has spent keeps its name. Raises RequestFault if there is none."""
    done = db.execute(
        "UPDATE keys SET revoked_us = max(?, created_us) WHERE name = ? AND revoked_us IS NULL",
        (now_us, name),
    ).rowcount
    if not done:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"there is no key named {name!r}",
            hint="poorwill keys list names them",
        )


def forget_keys(db: sqlite3.Connection) -> None:
    """Go back to a fleet without keys. Raises RequestFault while a key is not revoked."""
    if db.execute("SELECT 1 FROM keys WHERE revoked_us IS NULL").fetchone():
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            "there are keys in use",
            hint="revoke them first; without keys anybody who can connect may ask",
        )
    db.execute("DELETE FROM keys")


def list_keys(db: sqlite3.Connection) -> list[KeyRow]:
    """Return every key, revoked ones too, oldest first."""
    rows = db.execute("SELECT name, hint, created_us, revoked_us FROM keys ORDER BY id")
    return [
        KeyRow(name=name, hint=hint, created_us=created, revoked_us=revoked)
        for name, hint, created, revoked in rows
    ]


class LedgerKeys:
    """Implements `core.ports.keys.KeyRing` over a ledger; `follow` keeps it up to date."""

    def __init__(self, *, path: str, log: Log, follow_s: float = FOLLOW_S) -> None:
        self._path = path
        self._follow_s = follow_s
        self._log = log
        self._keys: Mapping[bytes, tuple[bytes, str]] = {}
        self._names: frozenset[str] = frozenset()
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
        """Return the name of the key presented, None if it is unknown or revoked."""
        digest = _digest(credential)
        known, name = self._keys.get(digest, (_NOBODY, None))
        return name if hmac.compare_digest(known, digest) else None

    def in_use(self, name: str) -> bool:
        """Return whether there is a key of this name that is not revoked."""
        return name in self._names

    def load(self) -> None:
        """Read the keys. Raises OperatorFault if the ledger cannot be read."""
        with reading(self._path) as db:
            rows = db.execute("SELECT digest, name, revoked_us FROM keys").fetchall()
        self._keys = {row[0]: (row[0], row[1]) for row in rows if row[2] is None}
        self._names = frozenset(name for _, name in self._keys.values())
        self._required = bool(rows)

    async def follow(self) -> None:
        """Read the keys again every second until cancelled; while the ledger cannot be read, keep them."""
        failing = False
        while True:
            await asyncio.sleep(self._follow_s)
            try:
                await asyncio.to_thread(self.load)
            except (OperatorFault, sqlite3.Error) as error:
                if not failing:
                    self._log.warning("keys cannot be read; the last known ones hold", why=str(error))
                failing = True
            else:
                failing = False


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
