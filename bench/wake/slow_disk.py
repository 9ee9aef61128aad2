"""A disk as slow as fleets have: reads of this process and its children limited by a control group.

Of the first version of control groups (blkio) or of the second (io.max); writes are left alone, because the
first version does not count those that go through the page cache.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def slow_disk(place: Path, mb_s: int) -> Iterator[None]:
    """Limit reads from the disk that holds `place` for the block; 0: not at all. Exits where it cannot."""
    if not mb_s:
        yield
        return
    first = GROUPS / "blkio"
    parent = first if first.is_dir() else GROUPS
    group = parent / f"poorwill-bench-{os.getpid()}"
    disk, count = _disk(place), mb_s * 10**6
    try:
        group.mkdir()
        if first.is_dir():
            (group / "blkio.throttle.read_bps_device").write_text(f"{disk} {count}")
        else:
            (parent / "cgroup.subtree_control").write_text("+io")
            (group / "io.max").write_text(f"{disk} rbps={count}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        raise SystemExit(f"cannot slow the disk {disk} down: {error}") from error
    try:
        yield
    finally:
        (parent / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def _disk(place: Path) -> str:
    """Return the number of the whole disk: limits are not set on a partition."""
    number = place.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    entry = Path("/sys/dev/block", name).resolve()
    return (entry.parent / "dev").read_text().strip() if (entry / "partition").exists() else name
