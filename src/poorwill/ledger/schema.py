"""Opening a ledger file: connections and their pragmas, numbered migrations, refusal of what is not ours.

Owns no tables' meaning. `synchronous`: a transaction that somebody waits for is committed with FULL, so it
survives the loss of power; one that nobody waits for with NORMAL, which survives the death of the process
and, in WAL mode, can only lose its newest commits together, never its consistency
(https://www.sqlite.org/pragma.html#pragma_synchronous). The writer switches between the two.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from urllib.parse import quote

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.words import ALL_CAUSES
from poorwill.hosts.files.opening import open_own
from poorwill.ledger.checksums import register, watch_rows

APPLICATION_ID = 0x70776C64
"""`pwld`, in the file's header: tells a ledger from any other SQLite database."""

BUSY_MS = 5_000
DAMAGED = "it is damaged"
LEDGER_FILE = "ledger.sqlite"


class LedgerFault(OperatorFault):
    """The ledger's file cannot be used; `why` says it in a few words."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            ErrorCode.LEDGER_UNAVAILABLE,
            f"the ledger {path} cannot be used: {why}",
            hint=_HINTS.get(why),
        )
        self.why = why


def connect_writer(path: str) -> sqlite3.Connection:
    """Open the writing connection, in WAL mode, without looking at what is inside.

    Raises OperatorFault(LEDGER_UNAVAILABLE) if the file cannot be opened or is no database. A new file
    is readable by its owner alone: it says who asked for what.
    """
    try:
        os.close(open_own(path, os.O_RDWR | os.O_CREAT))
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from error
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file: `compact` can shrink it
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise unusable(path, f"its file system gives journal_mode {mode}, not wal")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -32000")
        register(db)
    except sqlite3.Error as error:
        db.close()
        raise fault(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def reading(path: str, *, older: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a read-only connection to an existing ledger of this version, for the length of a `with`.

    All its questions see one state of the ledger, the one of the first: a bill is asked in many.
    Raises OperatorFault if there is none, if it is damaged, or if it is of another version;
    one that still needs migrating is let through where `older` is asked for.
    """
    if not os.path.exists(path):
        raise OperatorFault(
            ErrorCode.LEDGER_UNAVAILABLE,
            f"there is no ledger at {path}",
            hint="`poorwill serve` and `poorwill demo` write one; --fleet names the fleet it belongs to",
        )
    try:
        with closing(_connect_reader(path)) as db:
            db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            db.execute("PRAGMA query_only = ON")
            db.execute("PRAGMA cache_size = -64000")
            if not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                raise OperatorFault(
                    ErrorCode.LEDGER_UNAVAILABLE,
                    f"{path} is empty",
                    hint="`poorwill serve` begins a ledger in it",
                )
            if check_version(db, path) and not older:
                raise OperatorFault(
                    ErrorCode.LEDGER_UNAVAILABLE,
                    f"{path} was written by an older poorwill",
                    hint="`poorwill ledger migrate` brings it to this version, as `serve` does",
                )
            db.execute("BEGIN")
            yield db
    except sqlite3.Error as error:
        raise fault(path, error) from error
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its own message
        raise unusable(path, DAMAGED) from error


def _connect_reader(path: str) -> sqlite3.Connection:
    uri = f"file:{quote(path)}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def check_version(db: sqlite3.Connection, path: str) -> int:
    """Return how many migrations the file still needs.

    Raises OperatorFault for a file that is not a ledger, for a ledger of a newer poorwill, and if that cannot
    be found out.
    """
    have = int(db.execute("PRAGMA user_version").fetchone()[0])
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    try:
        newest = len(_migration_files())
    except OSError as error:  # no descriptor is left: that is no reason to end whoever asks every second
        raise unusable(path, f"poorwill's own files cannot be read: {error.strerror}") from error
    if owner != APPLICATION_ID and (have or db.execute("SELECT 1 FROM sqlite_schema").fetchone()):
        raise unusable(path, "it is a SQLite database, but not a poorwill ledger")
    if have > newest:
        raise OperatorFault(
            ErrorCode.LEDGER_UNAVAILABLE,
            f"{path} was written by a newer poorwill: its schema is {have}, this one knows {newest}",
            hint="install the newer poorwill; nothing was changed",
        )
    return newest - have


def migrate(db: sqlite3.Connection, path: str) -> int:
    """Bring a ledger to this version, each migration in a transaction of its own; return how many ran.

    Raises OperatorFault as `check_version` does, and if a migration cannot be written.
    """
    try:
        missing = check_version(db, path)
        known = migrations()
        for number in range(len(known) - missing + 1, len(known) + 1):
            db.executescript(
                f"BEGIN IMMEDIATE;\n{known[number - 1]}\n"
                f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        db.execute("BEGIN IMMEDIATE")
        watch_rows(db)
        _name_causes(db)
        db.execute("COMMIT")
    except sqlite3.Error as error:
        if db.in_transaction:
            db.rollback()
        raise fault(path, error) from error
    return missing


def migrations() -> list[str]:
    """Return the numbered SQL files in order."""
    return [file.read_text(encoding="utf-8") for file in _migration_files()]


def _migration_files() -> list[Traversable]:
    folder = resources.files("poorwill.ledger") / "migrations"
    return sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name
    )


def _name_causes(db: sqlite3.Connection) -> None:
    """Write the closed list of causes down; the schema refuses a span with any other."""
    known = {cause for (cause,) in db.execute("SELECT cause FROM causes")}
    db.executemany("INSERT INTO causes VALUES (?)", [(c,) for c in ALL_CAUSES if c not in known])


def fault(path: str, error: sqlite3.Error) -> LedgerFault:
    """Return a SQLite error as one that says what is wrong with the file and how to fix it."""
    return unusable(path, reason(error))


def blames_file(error: sqlite3.Error) -> bool:
    """Return whether SQLite blames the file or the disk, not what it was asked to do."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return any(name.startswith(prefix) for prefix, _ in _REASONS)


def reason(error: sqlite3.Error) -> str:
    """Return why SQLite refused, for people: `the disk is full`, `another process has it locked`."""
    name = getattr(error, "sqlite_errorname", "") or ""
    for prefix, words in _REASONS:
        if name.startswith(prefix):
            return words
    if "decode to UTF-8" in str(error):
        return DAMAGED
    return f"{error} ({name})" if name else str(error)


_REASONS = (
    ("SQLITE_FULL", "the disk is full"),
    ("SQLITE_BUSY", "another process has it locked"),
    ("SQLITE_LOCKED", "another connection has it locked"),
    ("SQLITE_CORRUPT", DAMAGED),
    ("SQLITE_NOTADB", "it is not a SQLite database, or its beginning is damaged"),
    ("SQLITE_READONLY", "it is read-only"),
    ("SQLITE_CANTOPEN", "it cannot be opened"),
    ("SQLITE_IOERR", "reading or writing it failed"),
)

_HINTS: Mapping[str, str] = {
    "the disk is full": "free some space; it goes on by itself",
    "another process has it locked": "end the other process; it goes on by itself",
    DAMAGED: "`poorwill ledger check` says how; restore a copy made by `poorwill ledger backup`",
    "it is not a SQLite database, or its beginning is damaged": "restore a copy made by "
    "`poorwill ledger backup`, or move the file away",
    "it cannot be opened": "give the user who runs poorwill the right to read it and its folder",
    "it is read-only": "give the user who runs poorwill the right to write it and its folder",
}


def damaged(db: sqlite3.Connection) -> LedgerFault:
    """Return the error for a ledger whose rows are not those that were written."""
    return unusable(str(db.execute("PRAGMA database_list").fetchone()[2]), DAMAGED)


def unusable(path: str, why: str) -> LedgerFault:
    """Return the error for a ledger that cannot be used."""
    return LedgerFault(path, why)
