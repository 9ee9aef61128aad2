"""A server to push to that is this machine."""

import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"

FLEET = """\
[fleet]
exit_s = 20
[gateway]
admin = "127.0.0.1:{port}"
[models.toy]
engine = "toy"
ladder = {ladder}
"""


def install_programs(directory: Path, names: tuple[str, ...] = ("ssh", "scp", "systemctl")) -> None:
    """Put the named programs where a PATH can find them."""
    for name in names:
        shutil.copy(PROGRAMS / name, directory / name)


def write_fleet(directory: Path, *, port: int = 8081, ladder: str = '["cold"]') -> Path:
    """Write a fleet.toml and return its path."""
    path = directory / "fleet.toml"
    path.write_text(FLEET.format(port=port, ladder=ladder))
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    home: Path
    programs: Path
    port: int

    @property
    def env(self) -> dict[str, str]:
        """Return what a push runs with."""
        return {
            "PATH": f"{self.programs}:{os.environ['PATH']}",  # noqa: TID251
            "SERVER_HOME": str(self.home),
            "SERVER_PORT": str(self.port),
        }

    def pid(self) -> int | None:
        """Return the pid of what the unit runs."""
        try:
            return int((self.home / "pid").read_text())
        except FileNotFoundError:
            return None

    def has(self, built: Path) -> bool:
        """Return whether the pushed file is in place, as it was."""
        return (self.home / "poorwill").read_bytes() == built.read_bytes()

    def copy_for_ever(self) -> None:
        """Let scp hang."""
        hanging = '#!/bin/sh\necho $$ >"$SERVER_HOME/scp.pid"\nexec sleep 60\n'
        (self.programs / "scp").write_text(hanging)

    def copying(self) -> str:
        """Return the pid of a hanging scp."""
        told = self.home / "scp.pid"
        return told.read_text().strip() if told.exists() else ""

    def stop(self) -> None:
        """End what the unit runs."""
        pid = self.pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def another(built: Path) -> None:
    """Make the file another one."""
    built.write_text(built.read_text().replace("# one", "# two"))


def broken(built: Path) -> None:
    """Make the file one that ends at once."""
    built.write_text("#!/bin/sh\nexit 1\n")
