"""Which fleet a verb is about: the options that name it.

Quick to import: `status` needs no more of a fleet than this.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from poorwill.cli.parsing.options import Option, Values
from poorwill.core.settings.paths import absolute_path

DEFAULT_FILE = "fleet.toml"

_FLEET = "the fleet's directory, or its fleet.toml (default: ./fleet.toml)"
FleetOption = Annotated[str, Option(_FLEET, metavar="FLEET", values=Values.FILES)]
FleetArgument = Annotated[str, Option(_FLEET, metavar="FLEET", either=True, values=Values.FILES)]
"""For verbs that are about nothing else: with or without `--fleet`."""
JsonOption = Annotated[bool, Option("print one JSON document")]
ModelArgument = Annotated[
    str, Option("as clients name it", argument=True, metavar="MODEL", values=Values.MODELS)
]


def fleet_path(fleet: str) -> str:
    """Return the path of a fleet's configuration file."""
    return str(Path(fleet, DEFAULT_FILE) if os.path.isdir(fleet) else Path(fleet))


def fleet_directory(fleet: str, env: Mapping[str, str]) -> Path | None:
    """Return the directory of a fleet's state, from its file alone; None if the file does not say.

    The rest of the file may be faulty: a fleet that is being served can be asked all the same.
    """
    path = fleet_path(fleet)
    base = os.path.dirname(os.path.abspath(path))
    try:
        with open(path, "rb") as file:
            named = tomllib.load(file).get("fleet", {}).get("directory", ".")
        return Path(absolute_path(named, base=base, home=env.get("HOME", "")))
    except (OSError, ValueError, AttributeError, TypeError):
        return None
