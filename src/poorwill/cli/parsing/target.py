"""Which fleet a verb is about, and how to talk to the poorwill that serves it."""

import argparse
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poorwill.cli.parsing.verb import Streams
from poorwill.config import load_fleet
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError, TryLater
from poorwill.core.settings import FleetSettings
from poorwill.fleet.lock import holder_of

DEFAULT_FILE = "fleet.toml"


def add_fleet_option(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Let a verb be told its fleet: a `fleet.toml`, or the directory that holds one.

    By `--fleet`, like every verb; `positional`: also without it, for verbs that are about nothing else.
    """
    parser.add_argument(
        "--fleet",
        default=DEFAULT_FILE,
        metavar="FLEET",
        action=_FleetOnce,
        help="the fleet's directory, or its fleet.toml (default: ./fleet.toml)",
    )
    if positional:
        parser.add_argument(
            "fleet",
            nargs="?",
            default=argparse.SUPPRESS,
            metavar="FLEET",
            action=_FleetOnce,
            help="the same as --fleet FLEET",
        )


class _FleetOnce(argparse.Action):
    """Takes a fleet by either name; two that differ are an error."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, "named_fleet", values) != values:
            parser.error(f"two fleets are named, {namespace.named_fleet} and {values}")
        namespace.fleet = namespace.named_fleet = values


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Let a reporting verb print JSON."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def fleet_path(options: argparse.Namespace) -> str:
    """Return the path of the fleet's configuration file."""
    path = Path(options.fleet)
    return str(path / DEFAULT_FILE if path.is_dir() else path)


def read_fleet(options: argparse.Namespace, streams: Streams, *, machine: bool = False) -> FleetSettings:
    """Read the configuration. Raises ConfigFault with every problem.

    `machine` also checks what serving needs: model files, secrets, and the engines' own options.
    """
    if not machine:
        return load_fleet(fleet_path(options), streams.env, machine=False)
    from poorwill.engines.kinds import ENGINE_KINDS  # slow to import; most verbs do without
    from poorwill.engines.weights.integrity import weights_fault

    known = {name: kind.options for name, kind in ENGINE_KINDS.items()}
    return load_fleet(fleet_path(options), streams.env, engine_options=known, weights_fault=weights_fault)


def serving(settings: FleetSettings) -> Mapping[str, str | int] | None:
    """Return what the poorwill that serves this fleet published, None where none does."""
    return holder_of(Path(settings.directory))


async def ask(
    settings: FleetSettings, method: str, path: str, *, timeout_s: float | None = 30.0
) -> dict[str, Any]:
    """Ask the running poorwill's admin listener and return its JSON.

    Raises OperatorFault(NOT_RUNNING) where none serves this fleet, and the error that it answered
    otherwise. Cancelled: the request is abandoned; what it started goes on.
    """
    import httpx2  # not needed by verbs that talk to nobody

    holder = serving(settings)
    if holder is None or "admin" not in holder:
        raise OperatorFault(
            ErrorCode.NOT_RUNNING,
            f"no poorwill serves {settings.directory}",
            hint=f"start it with: poorwill serve {shlex.quote(settings.directory)}",
        )
    url = f"http://{holder['admin']}{path}"
    try:
        async with httpx2.AsyncClient(timeout=timeout_s, trust_env=False) as client:
            response = await client.request(method, url)
    except httpx2.HTTPError as error:
        raise OperatorFault(
            ErrorCode.NOT_RUNNING,
            f"poorwill (pid {holder.get('pid')}) does not answer at {url}: {error!r}",
            hint="see its log",
        ) from error
    if response.is_success:
        answer = response.json()
        return answer if isinstance(answer, dict) else {"value": answer}
    raise _answered(response.status_code, response.text, response.headers.get("retry-after"))


def _answered(status: int, text: str, retry_after: str | None) -> PoorwillError:
    try:
        error = json.loads(text)["error"]
        code, message = ErrorCode(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return OperatorFault(ErrorCode.INTERNAL, f"status {status}: {text[:300]}")
    seconds = int(retry_after) if retry_after and retry_after.isdigit() else None
    return TryLater(code, message, retry_after_s=seconds, hint=error.get("hint"))
