"""The user of its own that an engine runs as: who that is, and what it may read."""

import os
import pwd
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUser:
    """A user of this machine, as its password and group files have it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def may(self, access: str, path: str) -> bool:
        """Return whether the user may read (`-r`), write (`-w`) or enter and run (`-x`) a path (test(1)).

        Asked as the user, since modes alone do not say. Raises OSError.
        """
        return (
            subprocess.run(
                ["/usr/bin/test", access, path],
                cwd="/",
                env={},
                check=False,
                user=self.uid,
                group=self.gid,
                extra_groups=self.groups,
            ).returncode
            == 0
        )

    def variables(self) -> dict[str, str]:
        """Return the variables that name the user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


CAP_SYS_RESOURCE = 1 << 24
"""capabilities(7): prlimit(2), with which CRIU reads an engine's limits, asks for it if the user differs."""


def may_freeze_others() -> bool:
    """Return whether CRIU could freeze an engine of another user: root may have been denied that."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        effective = next((line for line in file if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(effective.split()[1], 16) & CAP_SYS_RESOURCE)


def engine_user(name: str) -> EngineUser | None:
    """Return the user of a name, None for an empty one. Raises ValueError if there is none."""
    if not name:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ValueError(f"there is no user {name!r}") from None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return EngineUser(name=name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups, home=entry.pw_dir)
