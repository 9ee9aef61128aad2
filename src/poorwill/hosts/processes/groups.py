"""A control group for each engine, where one can be had: nothing that an engine starts gets out of it.

A session can be left, an environment cleared, a parent outlived; a control group (cgroups(7), version 2) is
left by nobody but who may write to its files. Its name comes from the engine's mark, so that the next
poorwill finds it. Where poorwill may make none, engines are found by session, mark and descent (`session`).
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from poorwill.hosts.processes import procfs

_PREFIX = "poorwill-"


@dataclass(frozen=True, slots=True)
class EngineGroups:
    """The groups of engines below one directory. Nothing here raises: what fails is found the other ways."""

    parent: Path | None = None
    """None: none can be had."""

    def enclose(self, mark: str, pid: int) -> None:
        """Move a process and its descendants into their engine's group, with what they start later."""
        if self.parent is None or not mark:
            return
        with suppress(OSError):
            self._group(mark).mkdir(exist_ok=True)
            for each in procfs.tree(pid):
                (self._group(mark) / "cgroup.procs").write_text(str(each))

    def pids(self, mark: str) -> list[int]:
        """Return the processes in the group of an engine, zombies excluded."""
        if self.parent is None or not mark:
            return []
        try:
            return [int(line) for line in (self._group(mark) / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def kill(self, mark: str) -> None:
        """Kill all in the group at once, also what is being forked; since Linux 5.14 (cgroup.kill)."""
        if self.pids(mark):
            with suppress(OSError):
                (self._group(mark) / "cgroup.kill").write_text("1")

    def remove(self, mark: str) -> None:
        """Remove the group of an engine that is gone."""
        if self.parent is not None and mark:
            with suppress(OSError):
                self._group(mark).rmdir()

    def _group(self, mark: str) -> Path:
        assert self.parent is not None
        return self.parent / f"{_PREFIX}{mark}"


def engine_groups(proc: Path = Path("/proc/self")) -> EngineGroups:
    """Return where poorwill may make groups: below its own, if that was delegated to it.

    systemd marks a delegated group (`Delegate=yes`) with an attribute; a group that it manages itself is left
    alone. The root of a container belongs to the container.
    """
    try:
        path = next(line[3:] for line in (proc / "cgroup").read_text().splitlines() if line.startswith("0::"))
        mounts = (line.split() for line in (proc / "mountinfo").read_text().splitlines())
        mount = next(words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2")
    except (OSError, StopIteration, ValueError):
        return EngineGroups()
    own = Path(mount + path.rstrip("/"))
    delegated = path == "/" or any(_says_yes(own, name) for name in ("user.delegate", "trusted.delegate"))
    usable = delegated and os.access(own, os.W_OK) and os.access(own / "cgroup.procs", os.W_OK)
    return EngineGroups(own if usable else None)


def _says_yes(path: Path, name: str) -> bool:
    try:
        return os.getxattr(path, name) == b"1"
    except OSError:
        return False
