"""`poorwill ledger`: check, back up, compact and migrate the file that holds the bill."""

import argparse
import os

from poorwill.cli.target import DEFAULT_FILE, add_fleet_option, fleet_path, read_fleet
from poorwill.cli.verb import Streams
from poorwill.core.settings import FleetSettings
from poorwill.ledger.schema import LEDGER_FILE


def add_ledger_options(parser: argparse.ArgumentParser) -> None:
    """Let a verb be told which ledger: by its fleet, or by the file itself."""
    add_fleet_option(parser)
    parser.add_argument("--ledger", metavar="FILE", help="a ledger file, without its fleet")


def ledger_path(options: argparse.Namespace, streams: Streams) -> str:
    """Return the ledger's path. Raises ConfigFault where the fleet cannot be read."""
    if options.ledger:
        return str(options.ledger)
    settings = fleet_of(options, streams)
    return os.path.join(settings.directory if settings else os.curdir, LEDGER_FILE)


def fleet_of(options: argparse.Namespace, streams: Streams) -> FleetSettings | None:
    """Return the fleet's settings, None where a ledger alone was named or lies here without a fleet."""
    if options.ledger:
        return None
    unnamed = options.fleet == DEFAULT_FILE
    if unnamed and not os.path.exists(fleet_path(options)) and os.path.exists(LEDGER_FILE):
        return None
    return read_fleet(options, streams)
