"""Memory filled behind a process that runs: in the order of its faults, whatever it does to its layout."""

import asyncio
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.waiting import until

from poorwill.core.ports.driver import DriverError, SnapshotRefused
from poorwill.hosts.files.aside import in_thread
from poorwill.hosts.processes import procfs
from poorwill.hosts.processes.userfault import PAGE_BYTES, can_fill
from poorwill.tiers.frozen.filling import SOCKET, Filling, listening
from poorwill.tiers.snapshots.image_files import CHUNK_BYTES, Chunk, Stopped

from .test_memory_map import LAZY, MM, PAGEMAP, PRESENT, message, write

CHILD = Path(__file__).with_name("filled_child.py")
PAGES = 10 * CHUNK_BYTES // PAGE_BYTES
FINISHED = struct.pack("=I", 0x52535446)

pytestmark = pytest.mark.skipif(not can_fill(), reason="other processes' memory may not be filled here")


@dataclass
class Numbered:
    """A file of pages, each with its number, counted from one, at its beginning. Implements `Pieces`."""

    before: Callable[[Chunk], object] = lambda chunk: None
    order: list[int] = field(default_factory=list)
    """The chunks in the order in which they were read."""

    @property
    def sizes(self) -> dict[str, int]:
        return {"pages-1.img": PAGES * PAGE_BYTES}

    def read(self, chunk: Chunk, buffer: memoryview) -> None:
        self.before(chunk)
        self.order.append(chunk.index)
        for at in range(0, chunk.bytes, PAGE_BYTES):
            struct.pack_into("=Q", buffer, at, (chunk.offset + at) // PAGE_BYTES + 1)


@dataclass
class Child:
    """The process, and where its pages are."""

    process: subprocess.Popen[str]
    memory: int
    room: int

    def does(self, *words: object) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def page(self, number: int) -> int:
        return self.memory + number * PAGE_BYTES


@contextmanager
def taken_over(place: Path, pieces: Numbered) -> Iterator[tuple[Filling, Child]]:
    """A child as criu hands one over; it is killed before its descriptors are closed."""
    ours, theirs = socket.socketpair()
    with listening(place, place, pieces) as filling, ours, theirs:
        argv = [sys.executable, "-I", "-S", str(CHILD), str(theirs.fileno()), str(PAGES)]
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        ) as process:
            try:
                assert process.stdout is not None
                memory, room = map(int, process.stdout.readline().split())
                pid, last = process.pid, memory + PAGES * PAGE_BYTES
                write(
                    place / f"mm-{pid}.img",
                    MM,
                    message((1, 5), (14, message((1, memory), (2, last), (5, 3)))),
                )
                entry = message((1, memory), (2, PAGES), (4, PRESENT | LAZY), (5, PAGES))
                write(place / f"pagemap-{pid}.img", PAGEMAP, message((1, 1)), entry)
                _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
                with socket.socket(socket.AF_UNIX) as criu:
                    criu.connect(str(place / SOCKET))
                    criu.sendall(struct.pack("=i", pid))
                    socket.send_fds(criu, [b"?"], [descriptor])
                    os.close(descriptor)
                    criu.sendall(FINISHED)
                    assert filling.take_over(threading.Event())
                yield filling, Child(process, memory, room)
            finally:
                process.kill()


async def test_what_is_waited_for_comes_next(tmp_path: Path):
    held = threading.Event()
    pieces = Numbered(before=lambda chunk: chunk.index == 9 or held.wait(10))
    with taken_over(tmp_path, pieces) as (filling, child):
        async with asyncio.TaskGroup() as group:
            group.create_task(in_thread(filling.fill))
            read = group.create_task(asyncio.to_thread(child.does, "read", child.page(PAGES - 1)))
            await until(lambda: filling.waiting and filling.waiting[0][1].index == 9)
            held.set()
        assert read.result() == str(PAGES)
    assert sorted(pieces.order) == list(range(10))
    assert pieces.order.index(9) <= len(filling.buffers)


@pytest.mark.parametrize("seed", range(4))
def test_layout_changes_are_heeded(tmp_path: Path, seed: int):
    """Whatever is dropped, unmapped, moved or forked while it is filled: every page is what it should be."""
    chance = random.Random(seed)
    pieces = Numbered(before=lambda chunk: threading.Event().wait(chance.random() / 100))
    expected = {number: number + 1 for number in range(PAGES)}
    where = {number: number for number in range(PAGES)}
    with taken_over(tmp_path, pieces) as (filling, child), ThreadPoolExecutor(1) as thread:
        filled = thread.submit(filling.fill, threading.Event())

        def addresses() -> list[int]:
            return [child.memory + where[number] * PAGE_BYTES for number in expected]

        blocks = list(range(0, PAGES, 64))
        chance.shuffle(blocks)
        for number, first in enumerate(blocks[:40]):
            count = chance.randint(1, 64)
            own = range(first, first + count)
            verb = chance.choice(["drop", "unmap", "move"])
            assert child.does(verb, first, count) == "0", verb
            for page in own:
                if verb == "drop":
                    expected[page] = 0
                elif verb == "unmap":
                    del expected[page]
                else:
                    where[page] = (child.room - child.memory) // PAGE_BYTES + page
            if number % 20 == 0:
                assert child.does("fork", *addresses()) == " ".join(map(str, expected.values()))
        assert child.does("all", *addresses()) == " ".join(map(str, expected.values()))
        filled.result(20)
        assert child.does("all", *addresses()) == " ".join(map(str, expected.values()))


def test_damage_far_behind_fails_it(tmp_path: Path):
    def damaged(chunk: Chunk) -> None:
        if chunk.index == 9:
            raise SnapshotRefused("damaged")

    with taken_over(tmp_path, Numbered(before=damaged)) as (filling, _):
        with pytest.raises(SnapshotRefused, match="damaged"):
            filling.fill(threading.Event())


def test_filling_stops_when_told(tmp_path: Path):
    stop = threading.Event()
    with taken_over(tmp_path, Numbered(before=lambda chunk: stop.set())) as (filling, _):
        with pytest.raises(Stopped):
            filling.fill(stop)


def test_a_process_that_ends_needs_no_memory(tmp_path: Path):
    with taken_over(tmp_path, Numbered()) as (filling, child):
        child.process.kill()
        child.process.wait()
        filling.fill(threading.Event())


def test_without_its_guard_it_fails(tmp_path: Path):
    with taken_over(tmp_path, Numbered(before=lambda chunk: threading.Event().wait(0.1))) as (filling, _):
        (guard,) = [
            stat.pid for stat in procfs.all_processes() if stat.parent == os.getpid() and is_guard(stat.pid)
        ]
        os.kill(guard, 9)
        with pytest.raises(DriverError, match="guard"):
            filling.fill(threading.Event())


def is_guard(pid: int) -> bool:
    return "watcher.py" in procfs.command_line(pid)
