"""What was acknowledged survives; what cannot be written waits, is told of, and is written later."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.entries import Alive
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.ledger.checking import problems
from poorwill.ledger.schema import reading

from .story import START, created, damage, opened, request, rows, span

CHILD = Path(__file__).with_name("killed.py")


@pytest.mark.parametrize("lines", [3, 40, 150])
def test_every_acknowledged_entry_survives_kill_9(path, lines):
    """A real process records spans and says each one that was acknowledged; it is killed in the middle."""
    child = subprocess.Popen([sys.executable, str(CHILD), path], stdout=subprocess.PIPE, text=True)
    try:
        acknowledged = [int(child.stdout.readline()) for _ in range(lines)]
    finally:
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
    acknowledged += [int(line) for line in rest.splitlines()[:-1]]
    with reading(path) as db:
        kept = {began for (began,) in db.execute("SELECT began_us FROM spans")}
        assert problems(db, path) == []
    assert set(acknowledged) <= kept


async def test_a_full_disk_loses_nothing(path, log):
    async with opened(path, log=log) as ledger:
        await ledger.record([created()])
        await ledger.thread.call(fill_up)
        with pytest.raises(OperatorFault) as told:
            await ledger.record([span(10, "serving", why="x" * 100_000)])
        assert told.value.code is ErrorCode.LEDGER_UNAVAILABLE
        assert ledger.unavailable == "the disk is full"
        ledger.post([span(20, "linger")])
        await ready(ledger)  # a new connection has no limit: the disk has room again
        await ledger.record([span(30, "serving")])
        await ledger.record([span(40, "linger")])
    assert rows(path) == [
        (0, 10, "parked.cold"),
        (10, 20, "serving"),
        (20, 30, "linger"),
        (30, 40, "serving"),
        (40, None, "linger"),
    ]
    assert log.errors() == ["the ledger cannot be written"]


def fill_up(db):
    """Let the file grow no further: SQLite answers SQLITE_FULL, as it does for a full disk."""
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + 1}")


async def ready(ledger):
    await until(lambda: not ledger.unavailable)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_really_full_disk_is_made_good(tmp_path, log):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]).returncode:  # noqa: ASYNC221
        pytest.skip("cannot mount a file system here")
    try:
        path = str(disk / "ledger.sqlite")
        async with opened(path, log=log) as ledger:
            await ledger.record([created()])
            ballast(disk)
            at = 0
            while not ledger.unavailable:
                at += 10
                try:
                    await ledger.record([span(at, "serving", why="x" * 3000)])
                except OperatorFault:
                    break
            assert ledger.unavailable
            (disk / "ballast").unlink()
            await ready(ledger)
            await ledger.record([span(at + 10, "linger")])
        with reading(path) as db:
            kept = db.execute("SELECT count(*) FROM spans").fetchone()[0]
            assert problems(db, path) == []
        assert kept == at // 10 + 2  # also the one that was told as not durable: it was kept in line
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: ASYNC221


def ballast(disk):
    descriptor = os.open(disk / "ballast", os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError:
        pass
    finally:
        os.close(descriptor)


async def test_a_lock_held_by_another_process_is_waited_out(path, log):
    async with opened(path, log=log) as ledger:
        await ledger.record([created()])
        await ledger.thread.call(lambda db: db.execute("PRAGMA busy_timeout = 10").fetchall())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(OperatorFault) as told:
                await ledger.record([span(10, "serving")])
            assert "another process has it locked" in told.value.message
            assert ledger.unavailable == "another process has it locked"
            other.execute("ROLLBACK")
        await ready(ledger)
        await ledger.record([span(20, "linger")])
    assert [began for began, _, _ in rows(path)] == [0, 10, 20]


async def test_two_processes_write_one_file(path):
    """`poorwill keys add` writes while `serve` does."""
    async with opened(path) as ledger:
        await ledger.record([created()])
        others = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "poorwill", "keys", "add", f"k{i}", "--ledger", path,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for i in range(3)
        ]  # fmt: skip
        at = 0
        while any(other.returncode is None for other in others):
            at += 10
            await ledger.record([span(at, "serving")])
            await asyncio.sleep(0)
        assert [await other.wait() for other in others] == [0, 0, 0]
    with reading(path) as db:
        assert db.execute("SELECT count(*) FROM keys").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM spans").fetchone() == (at // 10 + 1,)


async def test_a_deleted_file_is_noticed(path, log):
    async with opened(path, log=log) as ledger:
        await ledger.record([created()])
        os.rename(path, path + ".away")
        with pytest.raises(OperatorFault) as told:
            await ledger.record([span(10, "serving")])
        assert "moved or deleted" in told.value.message
        os.rename(path + ".away", path)
        await ready(ledger)
        await ledger.record([span(20, "linger")])
    assert [began for began, _, _ in rows(path)] == [0, 10, 20]


async def test_a_file_that_is_damaged_under_it_is_noticed(path, log):
    whole = path + ".whole"
    async with opened(path, log=log) as ledger:
        await ledger.record([created()])
    os.link(path, whole)
    keep(path, whole)
    async with opened(path, log=log) as ledger:
        damage(path, size_bytes=100_000)
        with pytest.raises(OperatorFault):
            await ledger.record([span(10, "serving")])
        assert ledger.unavailable
        keep(whole, path)  # the operator restores a copy
        await ready(ledger)
        await ledger.record([span(20, "linger")])
    assert [began for began, _, _ in rows(path)] == [0, 10, 20]


def keep(source, target):
    """Put a copy of a file in place of another."""
    copy = Path(target + ".copy")
    copy.write_bytes(Path(source).read_bytes())
    copy.rename(target)
    for suffix in ("-wal", "-shm"):
        Path(target + suffix).unlink(missing_ok=True)


async def test_closing_unwritten_says_what_is_lost(path, log):
    async with opened(path, log=log) as ledger:
        await ledger.record([created()])
        os.rename(path, path + ".away")
        ledger.post([span(10, "serving")])
        with pytest.raises(OperatorFault):
            await ledger.record([Alive(at_us=START)])
    assert ("error", "the ledger closes with entries unwritten") in [line[:2] for line in log.lines]


async def test_waiting_entries_are_bounded(path, log):
    async with opened(path, log=log, waiting_entries=100) as ledger:
        await ledger.record([created(), span(0, "serving")])
        os.rename(path, path + ".away")
        with pytest.raises(OperatorFault):
            await ledger.record([Alive(at_us=START)])
        for at in range(150):
            ledger.post([request(at, at, at + 1)])
        ledger.post([span(500, "linger")])
        assert ledger.dropped_rows() == 0, "not while nothing can be written"
        os.rename(path + ".away", path)
        await ready(ledger)
        dropped = ledger.dropped_rows()
        assert ledger.dropped_rows() == 0, "told once"
    with reading(path) as db:
        kept = db.execute("SELECT count(*) FROM requests").fetchone()[0]
    assert kept < 150
    assert dropped == 150 - kept
    assert rows(path)[-1] == (500, None, "linger")
