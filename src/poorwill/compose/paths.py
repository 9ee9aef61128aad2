"""Where a fleet keeps what, under its directory."""

from pathlib import Path

from poorwill.core.settings import FleetSettings
from poorwill.ledger.schema import LEDGER_FILE


def ledger_path(settings: FleetSettings) -> str:
    """Return where the fleet's ledger is."""
    return str(Path(settings.directory) / LEDGER_FILE)
