"""Where a fleet keeps what, under its directory."""

import os.path

from poorwill.core.settings import FleetSettings
from poorwill.ledger.schema import LEDGER_FILE


def ledger_path(settings: FleetSettings) -> str:
    """Return where the fleet's ledger is."""
    return os.path.join(settings.directory, LEDGER_FILE)
