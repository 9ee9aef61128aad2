"""The paths in a fleet's directory."""

import os.path

from poorwill.core.settings import FleetSettings
from poorwill.ledger.schema import LEDGER_FILE


def ledger_path(settings: FleetSettings) -> str:
    """Return the path of the fleet's ledger."""
    return os.path.join(settings.directory, LEDGER_FILE)
