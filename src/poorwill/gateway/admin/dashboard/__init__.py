"""The page the admin listener serves: one file, no build step, no framework, nothing from elsewhere.

It reads `/status` once a second and follows `/events`; it changes nothing.
"""

from importlib.resources import files


def page() -> bytes:
    """Return the page. Read at each call: nothing is kept in memory that nobody looks at."""
    return files("poorwill.gateway.admin.dashboard").joinpath("page.html").read_bytes()
