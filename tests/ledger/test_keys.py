"""API keys: hashed, shown once, followed by a running gateway, never a way in once revoked."""

import asyncio
import io
import json
import os
import resource
from contextlib import closing, contextmanager, suppress
from datetime import datetime

import pytest
from tests.waiting import until

from poorwill.cli.run import run
from poorwill.compose.clock import SystemClock
from poorwill.core.errors import OperatorFault, RequestFault
from poorwill.core.ports.keys import KeyLimits
from poorwill.ledger import keys
from poorwill.ledger.keys import LedgerKeys, add_key, revoke_key, rotate_key
from poorwill.ledger.schema import connect_writer, migrate

from .story import START, damage


def changed(path, work):
    with closing(connect_writer(path)) as db:
        migrate(db, path)
        return work(db)


async def poorwill(*args):
    out, err = io.StringIO(), io.StringIO()
    status = await run(args, {}, io.StringIO(), out, err)
    return status, out.getvalue(), err.getvalue()


def test_a_key_is_known_by_its_secret_alone(path, log):
    secret = changed(path, lambda db: add_key(db, "ann", now_us=START))
    ring = LedgerKeys(path=path, now_us=lambda: START, log=log)
    ring.load()
    assert ring.required
    assert ring.name_of(secret.encode()) == "ann"
    assert ring.name_of(secret.encode()[:-1]) is None
    assert ring.name_of(b"") is None


def test_revoking_the_last_key_lets_nobody_in(path, log):
    ring = LedgerKeys(path=path, now_us=lambda: START, log=log)
    changed(path, lambda db: None)
    ring.load()
    assert not ring.required
    secret = changed(path, lambda db: add_key(db, "ann", now_us=START))
    changed(path, lambda db: revoke_key(db, "ann", now_us=START + 1))
    ring.load()
    assert ring.required
    assert ring.name_of(secret.encode()) is None


@pytest.mark.parametrize("name", ["operator", "Anonymous", "floor", "(no key)"])
def test_own_words_name_no_key(path, name):
    with pytest.raises(RequestFault, match="means something"):
        changed(path, lambda db: add_key(db, name, now_us=START))


async def test_a_public_gateway_keeps_its_keys(tmp_path):
    (tmp_path / "fleet.toml").write_text('[gateway]\nlisten = "0.0.0.0:8080"\n[models.a]\nengine = "toy"\n')
    status, _, said = await poorwill("keys", "forget", "--fleet", str(tmp_path))
    assert (status, "may only while it asks for keys" in said) == (2, True), said


def test_a_key_is_rotated_without_downtime(path, log):
    now = [START]
    limits = KeyLimits(requests_minute=5)
    old = changed(path, lambda db: add_key(db, "ann", now_us=START, limits=limits))
    new = changed(path, lambda db: rotate_key(db, "ann", now_us=START, overlap_us=1000))
    ring = LedgerKeys(path=path, now_us=lambda: now[0], log=log)
    ring.load()
    assert [ring.name_of(secret.encode()) for secret in (old, new)] == ["ann", "ann"]
    assert ring.limits("ann") == limits
    now[0] += 1000
    ring.load()
    assert [ring.name_of(secret.encode()) for secret in (old, new)] == [None, "ann"]
    changed(path, lambda db: revoke_key(db, "ann", now_us=now[0]))
    ring.load()
    assert not ring.in_use("ann") and ring.required
    with pytest.raises(RequestFault, match="no key named"):
        changed(path, lambda db: rotate_key(db, "ann", now_us=START, overlap_us=0))


def test_an_expired_key_is_no_key(path, log):
    now = [START]
    secret = changed(path, lambda db: add_key(db, "ann", now_us=START, expires_us=START + 5))
    ring = LedgerKeys(path=path, now_us=lambda: now[0], log=log)
    ring.load()
    assert ring.in_use("ann")
    now[0] += 5
    ring.load()
    assert (ring.in_use("ann"), ring.name_of(secret.encode()), ring.required) == (False, None, True)


async def test_limits_on_the_command_line(path):
    given = ["--model", "a", "--model", "b", "--requests-minute", "60", "--tokens-minute", "1M"]
    given += ["--at-once", "4", "--held", "2", "--priority", "-1", "--expires", "2031-01-01"]
    status, secret, _ = await poorwill("keys", "add", "ann", "--ledger", path, *given)
    assert status == 0
    _, said, _ = await poorwill("keys", "list", "--ledger", path)
    assert (
        "only a, b; 60 requests a minute; 1,000,000 tokens a minute; 4 at once; 2 held; priority -1" in said
    )
    assert "expires 2031-01-01T00:00:00Z" in said
    status, said, _ = await poorwill(
        "keys", "limit", "ann", "--ledger", path, "--model", "all", "--held", "0"
    )
    assert (status, said) == (
        0,
        "ann has 60 requests a minute; 1,000,000 tokens a minute; 4 at once; priority -1\n",
    )
    status, other, told = await poorwill("keys", "rotate", "ann", "--ledger", path, "--overlap", "1h")
    assert status == 0 and other != secret and "The one it had is good until" in told
    status, said, _ = await poorwill("keys", "limit", "ann", "--ledger", path, "--expires", "never")
    _, said, _ = await poorwill("keys", "list", "--ledger", path, "--json")
    old, new = json.loads(said)["keys"]
    assert (bool(old["replaced"]), new["replaced"], new["expires"]) == (True, None, None)
    assert new["limits"] == {
        "requests_minute": 60,
        "tokens_minute": 1_000_000,
        "at_once": 4,
        "priority": -1,
    }
    status, _, told = await poorwill("keys", "limit", "bob", "--ledger", path)
    assert status == 2 and "there is no key named 'bob'" in told


async def test_a_key_is_for_models_that_there_are(tmp_path):
    """A name that the gateway never looks up would be a key that opens nothing."""
    (tmp_path / "fleet.toml").write_text(
        '[models.a]\nengine = "toy"\naliases = ["gpt-4o"]\npresets.strict = { temperature = 0 }\n'
    )
    fleet = ["--fleet", str(tmp_path)]
    status, _, told = await poorwill("keys", "add", "ann", *fleet, "--model", "nope")
    assert status == 2 and "there is no model 'nope'" in told and "a, gpt-4o, strict" in told
    status, _, told = await poorwill("keys", "add", "ann", *fleet, "--model", "gpt-4o", "--model", "strict")
    assert status == 0, told
    _, said, _ = await poorwill("keys", "list", *fleet, "--json")
    assert json.loads(said)["keys"][0]["limits"] == {"models": ["a"]}
    status, _, told = await poorwill("keys", "limit", "ann", *fleet, "--model", "nope")
    assert status == 2 and "there is no model 'nope'" in told


async def test_a_key_ends_so_long_from_now(path):
    started_us = SystemClock.started().now_us()
    status, _, told = await poorwill("keys", "add", "ann", "--ledger", path, "--expires", "90d")
    assert status == 0, told
    _, said, _ = await poorwill("keys", "list", "--ledger", path, "--json")
    ends = datetime.fromisoformat(json.loads(said)["keys"][0]["expires"]).timestamp()
    assert 0 <= ends - (started_us / 1e6 + 90 * 86400) + 1 < 3600
    status, _, told = await poorwill("keys", "add", "bob", "--ledger", path, "--expires", "2020-01-01")
    assert status == 2 and "2020-01-01 is over" in told


def test_the_secret_is_nowhere_in_the_file(path):
    secret = changed(path, lambda db: add_key(db, "ann", now_us=START))
    with open(path, "rb") as file:
        kept = file.read()
    assert secret.encode() not in kept
    assert secret.removeprefix(keys.PREFIX).encode() not in kept


async def test_a_running_gateway_follows(path, log):
    secret = changed(path, lambda db: add_key(db, "ann", now_us=START))
    ring = LedgerKeys(path=path, now_us=lambda: START, log=log)
    ring.load()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(ring.follow())
        changed(path, lambda db: revoke_key(db, "ann", now_us=START + 1))
        await until(lambda: not ring.name_of(secret.encode()))
        following.cancel()


async def test_unreadable_keys_stay_as_they_were(path, log):
    secret = changed(path, lambda db: add_key(db, "ann", now_us=START))
    ring = LedgerKeys(path=path, now_us=lambda: START, log=log, follow_s=0.001)
    ring.load()
    damage(path)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(ring.follow())
        await until(lambda: log.lines)
        following.cancel()
    assert ring.name_of(secret.encode()) == "ann"
    assert [message for _, message, _ in log.lines] == ["keys cannot be read; the last known ones hold"]


@contextmanager
def descriptors_left(free):
    """Only so many descriptors can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 64 + len(os.listdir("/proc/self/fd"))), hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("free", range(7))
async def test_want_of_descriptors_ends_nothing(path, log, free):
    """SQLite may have its files while poorwill's own cannot be listed any more."""
    secret = changed(path, lambda db: add_key(db, "ann", now_us=START))
    ring = LedgerKeys(path=path, now_us=lambda: START, log=log, follow_s=0.001)
    ring.load()
    with descriptors_left(free), suppress(OperatorFault):
        ring.load()
    async with asyncio.TaskGroup() as group:
        with descriptors_left(free):
            following = group.create_task(ring.follow())
            await until(lambda: log.lines or free > 2)
        changed(path, lambda db: revoke_key(db, "ann", now_us=START + 1))
        await until(lambda: not ring.name_of(secret.encode()))
        following.cancel()


async def test_the_verb_shows_a_key_once_and_never_again(path):
    status, secret, told = await poorwill("keys", "add", "ann", "--ledger", path)
    assert status == 0 and secret.startswith("pw-") and "shown once" in told
    status, listed, _ = await poorwill("keys", "list", "--ledger", path)
    assert status == 0 and "ann" in listed and secret.strip() not in listed
    assert (await poorwill("keys", "add", "ann", "--ledger", path))[0] == 2
    assert (await poorwill("keys", "forget", "--ledger", path))[0] == 2
    assert (await poorwill("keys", "revoke", "ann", "--ledger", path))[0] == 0
    assert (await poorwill("keys", "forget", "--ledger", path))[0] == 0


@pytest.mark.parametrize("name", ["", " ann", "a\nb", "(overhead)", "x" * 101])
async def test_a_name_that_would_confuse_the_bill_is_refused(path, name):
    status, out, told = await poorwill("keys", "add", name, "--ledger", path)
    assert (status, out) == (2, "")
    assert told.startswith("poorwill: ")
