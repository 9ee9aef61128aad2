"""How much may be read into the page cache before something in use has to give way."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def free_for_cache(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that can be cached without evicting what is in use: free, or unused for a while.

    A reserve is left (a twentieth of the memory, at most 1 GiB). Limits of our control groups count, of
    either version, and of those above them. 0 if the kernel does not tell.
    """
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        known = {
            name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)
        }
        room = known["MemFree"] + known["Inactive(file)"] - min(known["MemTotal"] // 20, 2**30)
    except (OSError, KeyError, ValueError, IndexError):
        return 0
    return max(0, min([room, *_group_rooms(proc, cgroups)]))


def _group_rooms(proc: Path, cgroups: Path) -> Iterator[int]:
    lines: list[str] = []
    with suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    for number, controllers, place in (line.split(":", 2) for line in lines if line.count(":") > 1):
        first = controllers == "memory"  # of the first version of control groups
        if not first and number != "0":
            continue
        root = cgroups / "memory" if first else cgroups
        limits, used_by = ("limit_in_bytes", "usage_in_bytes") if first else ("max", "current")
        # In a container the group that its path names is often what is mounted as the root.
        for group in (root / place.strip("/"), *(root / place.strip("/")).parents):
            with suppress(OSError, ValueError, LookupError):  # no limit, or without the controller
                limit = int((group / f"memory.{limits}").read_text())
                used = int((group / f"memory.{used_by}").read_text())
                stat = (group / "memory.stat").read_text().splitlines()
                inactive = [line.split()[1] for line in stat if "inactive_file " in line]
                yield limit - used + int(inactive[-1])  # with `total_`, later, the groups below count too
            if group == root:
                break
