"""The writing thread: order, batches, answers after COMMIT, closing."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from poorwill.core.entries import Alive, ClockStepped, Noted, ReplicaPlaced
from poorwill.core.words import Tier
from poorwill.ledger.checking import problems
from poorwill.ledger.history.recovery import UnfinishedWake, idle_gaps
from poorwill.ledger.ledger import last_instant_us
from poorwill.ledger.schema import reading

from .story import START, began, created, ended, opened, request, rows, span, write


async def test_recorded_means_committed(path):
    async with opened(path) as ledger:
        await ledger.record([created()])
        assert rows(path) == [(0, None, "parked.cold")]


async def test_entries_keep_the_order_of_calls(path):
    async with opened(path) as ledger:
        ledger.post([created()])
        ledger.post([span(10, "serving")])
        await ledger.record([span(20, "linger")])
        ledger.post([span(30, "serving")])
    assert rows(path) == [
        (0, 10, "parked.cold"),
        (10, 20, "serving"),
        (20, 30, "linger"),
        (30, None, "serving"),
    ]


async def test_posted_entries_are_committed(path):
    async with opened(path) as ledger:
        ledger.post([created()])
        async with asyncio.timeout(5):
            while not rows(path):  # noqa: ASYNC110 - a commit sends no signal
                await asyncio.sleep(0)


async def test_an_abandoned_record_is_committed_all_the_same(path):
    async with opened(path) as ledger:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await ledger.record([created()])
        await ledger.record([span(10, "serving")])
        assert [cause for _, _, cause in rows(path)] == ["parked.cold", "serving"]


async def test_a_cancelled_close_commits(path):
    entered = asyncio.Event()

    async def serve():
        async with opened(path) as ledger:
            ledger.post([created()])
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(serve())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rows(path) == [(0, None, "parked.cold")]


async def test_a_close_cancelled_twice_commits(path):
    entered = asyncio.Event()

    async def leave():
        async with opened(path) as ledger:
            ledger.post([created()])
            entered.set()

    task = asyncio.get_running_loop().create_task(leave())
    await entered.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rows(path) == [(0, None, "parked.cold")]
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)  # nobody has it open
    db.close()


async def test_abandoned_calls_run(path):
    async with opened(path) as ledger:
        await ledger.record([created()])
        for work in (
            ledger.thread.call(lambda db: db.execute("INSERT INTO texts (text) VALUES ('x')")),
            ledger.read(lambda db: db.execute("SELECT count(*) FROM spans").fetchone()),
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await work
        await ledger.record([span(10, "serving")])
        found = await ledger.read(lambda db: db.execute("SELECT text FROM texts").fetchall())
    assert found == [("x",)]


async def test_a_question_sees_one_state(path):
    async with opened(path) as ledger:
        await ledger.record([created()])
        with reading(path) as db:
            count = "SELECT count(*) FROM spans"
            assert db.execute(count).fetchone() == (1,)
            await ledger.record([span(10, "serving")])
            assert db.execute(count).fetchone() == (1,)
        with reading(path) as db:
            assert db.execute(count).fetchone() == (2,)


async def test_a_call_has_its_own_transaction(path):
    async with opened(path) as ledger:
        await ledger.record([created()])

        def spoil(db):
            db.execute("INSERT INTO notes (at_us, kind, text) VALUES (1, 'x', 'y')")
            db.execute("INSERT INTO nowhere VALUES (1)")

        with pytest.raises(sqlite3.OperationalError):
            await ledger.thread.call(spoil)
        assert await ledger.thread.call(lambda db: db.execute("SELECT 7").fetchone()[0]) == 7
        with reading(path) as db:
            assert db.execute("SELECT count(*) FROM notes").fetchone() == (0,)


def test_rows_are_summed_by_the_hour(path):
    write(
        path,
        [created(), began(5), span(5, "wake.provision", wake="a.0.1")],
        [ended(10), span(10, "serving")],
        [request(0, 10, 30, wake="a.0.1", key="ann", tokens=(5, 7)), request(1, None, 20)],
    )
    with reading(path) as db:
        named = db.execute(
            "SELECT model, key, replica, wake, tokens_out, outcome FROM request_rows ORDER BY id"
        ).fetchall()
        sums = db.execute(
            "SELECT requests, failed, untold, tokens_in, tokens_out, held_us FROM usage ORDER BY key"
        ).fetchall()
    assert named == [
        ("a", "ann", "a.0", "a.0.1", 7, "ok"),
        ("a", "", None, None, None, "wake_timeout"),
    ]
    assert sorted(sums) == [(1, 0, 0, 5, 7, 10), (1, 1, 1, 0, 0, 19)]


def test_counted_tokens_are_marked(path):
    asked = [request(0, 0, 9, tokens=(None, 7)), request(0, 0, 8, tokens=(5, None)), request(0, 0, 7)]
    write(path, [created()], [replace(asked[0], counted=True), *asked[1:]])
    with reading(path) as db:
        marks = db.execute("SELECT tokens_in, tokens_out, counted FROM request_rows ORDER BY id").fetchall()
        assert marks == [(None, 7, 1), (5, None, None), (None, None, None)]
        assert db.execute("SELECT requests, untold, counted FROM usage").fetchall() == [(3, 1, 1)]
        assert problems(db, path) == []


async def test_recovery_finds_what_lived(path):
    placed = ReplicaPlaced(
        replica="a.0", at_us=START + 3, generation=4, running_json='{"pid": 1}', parked_json=""
    )
    async with opened(path) as ledger:
        await ledger.record([created(), placed, began(5), span(5, "wake.provision", wake="a.0.1")])
        await ledger.record([Alive(at_us=START + 9)])
        known = ledger.recovered()
    assert (known.last_us, known.alive_us) == (START + 9, START + 9)
    assert last_instant_us(path) == START + 9
    (replica,) = known.replicas
    assert (replica.replica, replica.cause, replica.span_began_us, replica.placed) == (
        "a.0",
        "wake.provision",
        START + 5,
        placed,
    )
    assert known.wakes == (
        UnfinishedWake(
            wake="a.0.1",
            replica="a.0",
            generation=1,
            from_tier=Tier.FROZEN,
            began_us=START + 5,
        ),
    )


def test_recovery_remembers_wakes_by_tier(path):
    story = [created()]
    for n in range(5):
        at = 100 * n + 10
        wake = f"a.0.{n}"
        story += [
            began(at, wake),
            span(at, "wake.provision", wake=wake),
            ended(at + n + 1, wake),
            span(at + n + 1, "linger"),
        ]
    write(path, story)
    with reading(path) as db:
        from poorwill.ledger.history.recovery import recovered

        known = recovered(db, remembered=3)
    assert [wake.lasted_us for wake in known.wake_times] == [3, 4, 5]
    assert known.wakes == ()


def test_idle_gaps_end_with_demand(path):
    write(
        path,
        [
            created(),
            began(5),
            span(5, "wake.provision", wake="a.0.1"),
            ended(8),
            span(8, "serving"),
        ],
        [span(20, "linger"), span(30, "serving"), span(40, "linger"), span(60, "parked.cold")],
        [began(75, "a.0.2"), span(75, "wake.provision", wake="a.0.2"), ended(90, "a.0.2")],
        [span(90, "serving"), span(95, "linger")],
    )
    with reading(path) as db:
        gaps = idle_gaps(db, "a.0", since_us=0)
    assert [(a - START, b - START) for a, b in gaps] == [(20, 30), (40, 75)]


def test_a_predicted_wake_does_not_end_an_idle_stretch(path):
    predicted = replace(began(30, "a.0.1"), why="predicted")
    write(
        path,
        [created(), span(5, "serving"), span(10, "linger"), span(20, "parked.cold", tier="cold")],
        [predicted, span(30, "wake.provision", wake="a.0.1"), ended(35), span(35, "linger")],
        [span(50, "serving"), span(60, "linger")],
    )
    with reading(path) as db:
        gaps = idle_gaps(db, "a.0", since_us=0)
    assert [(a - START, b - START) for a, b in gaps] == [(10, 50)]


def test_a_clock_step_and_a_note_can_be_found_later(path):
    write(
        path,
        [ClockStepped(at_us=START, by_us=-5_000_000)],
        [Noted(at_us=START, kind="orphan", text="pid 7", detail={"pid": "7"})],
    )
    with reading(path) as db:
        notes = db.execute("SELECT kind, text, detail_json FROM notes ORDER BY id").fetchall()
    assert notes == [
        ("clock_stepped", "the wall clock was set 5 s back", '{"by_us": "-5000000"}'),
        ("orphan", "pid 7", '{"pid": "7"}'),
    ]


def woken(path):
    with reading(path) as db:
        assert problems(db, path) == []
        return db.execute(
            "SELECT w.wake, t.text, k.requests FROM wake_keys k JOIN wakes w ON w.id = k.wake"
            " JOIN texts t ON t.id = k.key ORDER BY 1, 2"
        ).fetchall()


def test_a_wake_is_charged_to_its_list(path):
    """One waited for two wakes, one gave up before the wake ended, one was held before the wake began."""
    both, gone, early = (
        request(arrived, leased, end, key=key)
        for arrived, leased, end, key in (
            (1, 30, 40, "ann"),
            (2, None, 8, "bob"),
            (3, 30, 40, "cat"),
        )
    )
    ids = (both.request, gone.request, early.request)
    write(
        path,
        [created(), began(5, "a.0.1"), span(5, "wake.read_image", wake="a.0.1")],
        [gone],
        [ended(10, "a.0.1", ok=False, served=ids[:2]), began(10, "a.0.2")],
        [span(10, "wake.spawn", wake="a.0.2"), ended(30, "a.0.2", served=(ids[0], ids[2]))],
        [span(30, "serving"), replace(both, wake="a.0.2"), early, span(40, "linger")],
    )
    assert woken(path) == [
        ("a.0.1", "ann", 1),
        ("a.0.1", "bob", 1),
        ("a.0.2", "ann", 1),
        ("a.0.2", "cat", 1),
    ]


def test_a_reused_id_is_not_charged_twice(path):
    first = request(1, 10, 20, key="ann")
    again = replace(request(50, 50, 60, key="ann"), request=first.request)
    write(
        path,
        [created(), began(2, "a.0.1"), span(2, "wake.spawn", wake="a.0.1")],
        [ended(10, "a.0.1", served=(first.request,)), span(10, "serving"), first],
        [span(20, "linger"), span(50, "serving"), again, span(60, "linger")],
    )
    assert woken(path) == [("a.0.1", "ann", 1)]


def test_one_that_another_replica_served_is_charged(path):
    """It ended while the wake that was begun for it went on."""
    served, warm = request(2, 6, 8, key="ann"), request(3, 3, 7, key="bob")
    write(
        path,
        [created(), began(5, "a.0.1"), span(5, "wake.spawn", wake="a.0.1")],
        [warm, served],
        [ended(10, "a.0.1", served=(served.request,)), span(10, "linger")],
    )
    assert woken(path) == [("a.0.1", "ann", 1)]


def test_a_wake_without_a_list_has_its_rows(path):
    """A kill interrupted the first wake; another replica's served the request that it was begun for."""
    one = replace(request(1, 20, 30, key="ann"), wake="a.0.1")
    write(
        path,
        [created(), began(5, "a.0.1"), span(5, "wake.spawn", wake="a.0.1")],
        [created(6, "a.1"), began(7, "a.1.1", replica="a.1")],
        [span(7, "wake.spawn", replica="a.1", wake="a.1.1")],
        [ended(20, "a.1.1", replica="a.1", served=(one.request,)), span(20, "serving", replica="a.1"), one],
        [ended(40, "a.0.1", ok=False), span(40, "parked.cold")],
    )
    assert woken(path) == [("a.0.1", "ann", 1), ("a.1.1", "ann", 1)]


async def test_a_rollback_is_counted_once(path):
    async with opened(path) as ledger:
        await ledger.record([created(), began(5), span(5, "wake.spawn", wake="a.0.1")])
        one = request(1, 10, 20, key="ann")
        answers = [
            ledger.record([ended(10, served=(one.request,)), span(10, "serving")]),
            ledger.record([one]),
            ledger.record([span(3, "linger")]),  # refused: the batch is rolled back and tried one by one
        ]
        results = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(result).__name__ for result in results] == [
            "NoneType",
            "NoneType",
            "EntryRefused",
        ]
    assert woken(path) == [("a.0.1", "ann", 1)]
