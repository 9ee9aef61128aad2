"""Reading ahead: what gets into the page cache, what is left alone, and how much may be read."""

import ctypes
import itertools
import mmap
import os
import threading
from pathlib import Path

import pytest
from tests.waiting import wait_until

from poorwill.engines.measured.free_memory import free_for_cache
from poorwill.hosts.files.read_ahead import CHUNK_BYTES, ReadAhead, bring_in

PLENTY = 2**40


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Three and a half chunks on the disk, of which nothing is in the page cache."""
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(CHUNK_BYTES // 2) * 7)
    uncached(path)
    return path


def uncached(path: Path) -> None:
    def dropped() -> bool:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return not any(pages_in_cache(path))  # the kernel keeps pages that it is about to put on a list

    wait_until(dropped)


def pages_in_cache(path: Path) -> list[bool]:
    """Ask mincore(2), page by page: a read with RWF_NOWAIT has the kernel read what it does not find."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as view:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(view)
        result = ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(size), pages)
        del start  # or the mapping cannot be closed
    assert result == 0
    return [bool(page & 1) for page in pages]


def read(*files: Path, room: int = PLENTY) -> ReadAhead:
    ahead = ReadAhead(files=lambda: files, room_bytes=lambda: room)
    ahead.start()
    ahead.wait()
    return ahead


def in_cache(path: Path) -> bool:
    return all(pages_in_cache(path))


def test_files_are_in_the_page_cache_afterwards(weights: Path):
    ahead = read(weights)
    assert in_cache(weights)
    assert ahead.wanted == ahead.read + ahead.cached == weights.stat().st_size and ahead.read > 0


def test_a_file_named_twice_is_read_once(weights: Path):
    assert read(weights, weights).wanted == weights.stat().st_size


def test_what_is_missing_most_is_read_first(tmp_path: Path):
    files = {name: tmp_path / name for name in ("cached", "small", "large", "half")}
    for name, chunks in {"cached": 6, "small": 1, "large": 4, "half": 6}.items():
        files[name].write_bytes(os.urandom(chunks * CHUNK_BYTES))
        uncached(files[name])
    files["cached"].read_bytes()
    with files["half"].open("rb") as file:
        file.read(3 * CHUNK_BYTES)
    ahead = read(*files.values(), room=4 * CHUNK_BYTES)
    assert in_cache(files["large"]) and not in_cache(files["small"])
    assert ahead.read == 4 * CHUNK_BYTES


@pytest.mark.parametrize(("at_once", "best"), [(0, 16), (4, 4)])
def test_as_many_readers_as_the_storage_rewards(tmp_path: Path, at_once: int, best: int):
    """It answers the first `at_once` reads, and the others when all the readers there will be wait for it."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(24 * CHUNK_BYTES))
    calls, answer = itertools.count(), threading.Event()
    waiting: list[int] = []

    def slow(path: Path, offset: int, buffer: memoryview) -> tuple[int, int]:
        if (call := next(calls)) >= at_once:
            waiting.append(call)
            answer.wait(30)
        return 0, len(buffer)

    ahead = ReadAhead(files=lambda: [path], room_bytes=lambda: PLENTY, bring_in=slow)
    ahead.start()
    wait_until(lambda: len(waiting) == max(best, 8) and ahead.readers == best)
    answer.set()
    ahead.wait()
    assert ahead.read == ahead.wanted


def test_cached_files_are_not_read(weights: Path):
    weights.read_bytes()
    ahead = read(weights)
    assert (ahead.read, ahead.cached) == (0, weights.stat().st_size)


def test_what_is_not_kept_is_not_read_twice(tmp_path: Path):
    """As of a network file system that forgets a file when it is closed."""
    shards = [tmp_path / str(number) for number in range(20)]
    for path in shards:
        path.write_bytes(os.urandom(CHUNK_BYTES))
        uncached(path)

    def forgetful(path: Path, offset: int, buffer: memoryview) -> tuple[int, int]:
        found = bring_in(path, offset, buffer)
        uncached(path)
        return found

    ahead = ReadAhead(files=lambda: shards, room_bytes=lambda: PLENTY, bring_in=forgetful)
    ahead.start()
    ahead.wait()
    assert 0 < ahead.read <= 16 * CHUNK_BYTES, "at most one of each reader"


def test_no_room_means_no_reading(weights: Path):
    ahead = read(weights, room=CHUNK_BYTES - 1)
    assert ahead.read == 0 and ahead.missed == ahead.wanted and ahead.short_of_room


def test_what_was_read_counts_against_the_room(tmp_path: Path):
    """The cache that it fills is free for the next file in the kernel's own figures."""
    files = [tmp_path / name for name in "abcd"]
    for path in files:
        path.write_bytes(os.urandom(CHUNK_BYTES))
        uncached(path)
    ahead = read(*files, room=2 * CHUNK_BYTES)
    assert ahead.read == 2 * CHUNK_BYTES and ahead.short_of_room


def test_stopped_before_it_begins(weights: Path):
    ahead = ReadAhead(files=lambda: [weights], room_bytes=lambda: PLENTY)
    ahead.stop()
    ahead.start()
    ahead.wait()
    assert ahead.read == 0


@pytest.mark.parametrize("stopped", [True, False])
def test_nothing_is_read_at_rest(weights: Path, stopped: bool):
    resting, asked = threading.Event(), threading.Event()

    def files() -> list[Path]:
        asked.set()
        resting.wait(30)
        return [weights]

    ahead = ReadAhead(files=files, room_bytes=lambda: PLENTY)
    ahead.start()
    asked.wait(30)
    ahead.rest(rest=True)
    resting.set()
    wait_until(lambda: ahead.readers > 0)
    assert ahead.read == 0
    if stopped:
        ahead.stop()
    ahead.rest(rest=stopped)
    ahead.wait()
    assert ahead.read == (0 if stopped else weights.stat().st_size)


def test_strange_files_are_passed_over(tmp_path: Path, weights: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").touch()
    ahead = read(
        tmp_path, tmp_path / "fifo", tmp_path / "loop", tmp_path / "none", tmp_path / "empty", weights
    )
    assert in_cache(weights) and ahead.wanted == weights.stat().st_size
    assert read().wanted == 0


MEMINFO = "MemTotal: 20000 kB\nMemFree: 3000 kB\nInactive(file): 2000 kB\nActive(file): 9000 kB\n"


@pytest.mark.parametrize(
    ("limits", "kib"),
    [
        ({}, 4000),
        ({"": "max"}, 4000),
        ({"a": 3000}, 2500),
        ({"a": 3000, "a/b": 2000}, 1500),
        ({"a": 100}, 0),
    ],
)
def test_room_is_what_nobody_uses(tmp_path: Path, limits: dict[str, int | str], kib: int):
    """Free and inactive, less a twentieth; a group of which 1,000 KiB are used and 500 of them inactive."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    (tmp_path / "groups/a/b").mkdir(parents=True)
    for group, limit in limits.items():
        home = tmp_path / "groups" / group
        (home / "memory.max").write_text(f"{limit if isinstance(limit, str) else limit * 1024}\n")
        (home / "memory.current").write_text(f"{1000 * 1024}\n")
        (home / "memory.stat").write_text(f"anon 7\ninactive_file {500 * 1024}\n")
    assert free_for_cache(tmp_path / "proc", tmp_path / "groups") == kib * 1024


def test_room_in_the_first_version_of_groups(tmp_path: Path):
    """As a container sees it: the path is its host's, and its own group is mounted as the root."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/cgroup").write_text("5:devices:/\n4:memory:/host/a\n0::/\n")
    home = tmp_path / "groups/memory"
    home.mkdir(parents=True)
    (home / "memory.limit_in_bytes").write_text(f"{3000 * 1024}\n")
    (home / "memory.usage_in_bytes").write_text(f"{1000 * 1024}\n")
    (home / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {500 * 1024}\n")
    assert free_for_cache(tmp_path / "proc", tmp_path / "groups") == 2500 * 1024


def test_room_of_an_unknown_kernel_is_none(tmp_path: Path):
    assert free_for_cache(tmp_path) == 0
    assert free_for_cache() > 0
