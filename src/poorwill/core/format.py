"""Counts and sizes as people read them. Money is said by `core.money`, durations where they are shown."""


def counted(count: int, what: str) -> str:
    """Return how many there are of something with a regular plural: `1 wake`, `2 wakes`, `1,204 wakes`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Return a count of bytes with three digits that matter: `812 B`, `1.9 GB`; decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"
