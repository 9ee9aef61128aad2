"""How far to trust the measured storage."""

from poorwill.core.format import moment
from poorwill.engines.measured.storage_speed import StorageSpeed


def how_measured(speed: StorageSpeed) -> str:
    """Return how far to trust a measurement of the storage, and of when it is."""
    how = "past the page cache" if speed.direct else "not surely past the page cache"
    return f"{how}, {moment(speed.at_us)}"
