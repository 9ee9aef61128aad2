"""What the unit's text and whoever restarts the unit must agree on."""

from enum import StrEnum

MARGIN_S = 15
"""From the end of poorwill's own shutdown to systemd's SIGKILL: closing the ledger, a slow disk."""


class Manager(StrEnum):
    """Which systemd runs the unit."""

    SYSTEM = "system"
    USER = "user"
