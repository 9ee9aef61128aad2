"""Which poorwill is asked: the one that serves a fleet, or the one behind a URL."""

import os.path
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetArgument, FleetOption, fleet_directory, fleet_path
from poorwill.cli.parsing.options import Option, Values
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.fleet.lock import holder_of
from poorwill.telemetry.admin.client import AdminSite, ask_listener, site_at

T = TypeVar("T")
ADMIN_KEY = "POORWILL_ADMIN_KEY"
"""The environment variable that holds an operator's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFleet:
    """A fleet that is being served, named by its directory or by the address of its admin listener."""

    fleet: FleetOption = DEFAULT_FILE
    url: Annotated[
        str | None,
        Option("instead: the admin listener of a fleet that another user or machine serves", metavar="URL"),
    ] = None
    key_file: Annotated[
        str,
        Option(
            f"its operator's key is in this file (else in ${ADMIN_KEY})", metavar="FILE", values=Values.FILES
        ),
    ] = ""
    ca: Annotated[
        str | None, Option("trust its certificate by this one (PEM)", metavar="FILE", values=Values.FILES)
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
    return await ask_listener(admin_site(where, env), method, path, document, timeout_s=timeout_s)


def admin_site(where: ServedFleet, env: Mapping[str, str]) -> AdminSite:
    """Return the admin listener that is meant. Raises OperatorFault if nobody is behind it."""
    if where.url is None:
        holder = holder_of_fleet(where.fleet, env)
        if holder is None or "admin" not in holder:
            raise _not_running(where.fleet)
        url = urlsplit(f"http://{holder['admin']}")
        return AdminSite(url=url, who=f"poorwill (pid {holder.get('pid')})")
    key = env.get(ADMIN_KEY, "")
    return site_at(where.url, key_file=where.key_file, key=key, ca=where.ca)


def _not_running(fleet: str) -> OperatorFault:
    where = os.path.dirname(os.path.abspath(fleet_path(fleet)))
    return OperatorFault(
        ErrorCode.NOT_RUNNING,
        f"no poorwill serves {where}",
        hint=f"start it with: poorwill serve {shlex.quote(where)}",
    )
