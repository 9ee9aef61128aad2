"""Which poorwill is asked: the one that serves a fleet, or the one behind a URL."""

import os.path
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import SplitResult, urlsplit

from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetArgument, FleetOption, fleet_directory, fleet_path
from poorwill.cli.parsing.options import Option
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.fleet.lock import holder_of
from poorwill.telemetry.admin.client import ask_listener

T = TypeVar("T")
ADMIN_KEY = "POORWILL_ADMIN_KEY"
"""The environment variable that holds the key of an admin listener that asks for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFleet:
    """A fleet that is being served, named by its directory or by the address of its admin listener."""

    fleet: FleetOption = DEFAULT_FILE
    url: Annotated[
        str | None,
        Option(
            f"instead: the admin listener of a fleet that another user or machine serves; ${ADMIN_KEY} is "
            "its key, if it asks for one",
            metavar="URL",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFleetArgument(ServedFleet):
    """The same for verbs that are about nothing else: the fleet with or without `--fleet`."""

    fleet: FleetArgument = DEFAULT_FILE


def holder_of_fleet(fleet: str, env: Mapping[str, str]) -> Mapping[str, str | int] | None:
    """Return what the poorwill that serves a fleet published; None if none does.

    A fleet that is being served can be asked whatever its file says by now; otherwise raises ConfigFault if
    something is wrong with the file.
    """
    directory = fleet_directory(fleet, env)
    holder = None if directory is None else holder_of(directory)
    if holder is None:
        from poorwill.cli.parsing.settings import read_fleet  # slow to import; it says what is wrong

        read_fleet(fleet, env)
    return holder


async def ask(
    where: ServedFleet,
    env: Mapping[str, str],
    method: str,
    path: str,
    document: type[T],
    *,
    timeout_s: float | None = 30.0,
) -> T:
    """Ask the poorwill that serves a fleet and return the document that it answers.

    Raises OperatorFault(NOT_RUNNING) if none does, or the error that it answered. Cancelled: the request is
    abandoned; what it started goes on.
    """
    url, who = _listener(where, env)
    key = env.get(ADMIN_KEY, "")
    return await ask_listener(url, method, path, document, key=key, who=who, timeout_s=timeout_s)


def _listener(where: ServedFleet, env: Mapping[str, str]) -> tuple[SplitResult, str]:
    """Return the URL of the admin listener, and who is behind it. Raises OperatorFault if nobody is."""
    if where.url is None:
        holder = holder_of_fleet(where.fleet, env)
        if holder is None or "admin" not in holder:
            raise _not_running(where.fleet)
        return urlsplit(f"http://{holder['admin']}"), f"poorwill (pid {holder.get('pid')})"
    try:
        url = urlsplit(where.url if "://" in where.url else f"http://{where.url}")
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url, "poorwill"
    except ValueError:
        pass
    what = f"--url {where.url}: not an address such as http://10.0.0.5:8081"
    raise OperatorFault(ErrorCode.INVALID_REQUEST, what)


def _not_running(fleet: str) -> OperatorFault:
    where = os.path.dirname(os.path.abspath(fleet_path(fleet)))
    return OperatorFault(
        ErrorCode.NOT_RUNNING,
        f"no poorwill serves {where}",
        hint=f"start it with: poorwill serve {shlex.quote(where)}",
    )
