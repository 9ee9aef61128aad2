"""The page the admin listener serves: one document, no build step, no framework, nothing from elsewhere.

It is written as a skeleton, a style sheet and some scripts, and leaves as one document. It reads `/status`,
follows `/events` and asks `/history`; it changes something only when a person presses a button.
"""

from importlib.resources import files

SCRIPTS = (
    *("basics", "charts", "glance", "actions", "ribbons", "wakes"),
    *("costs", "requests", "chat", "plan", "live"),
)
"""In the order in which they run; together they are one script."""


def page() -> bytes:
    """Return the page. Read at each call: nothing is kept in memory that nobody looks at."""
    folder = files("poorwill.telemetry.dashboard.page")
    style = folder.joinpath("style.css").read_text()
    script = "".join(folder.joinpath(f"{name}.js").read_text() for name in SCRIPTS)
    skeleton = folder.joinpath("page.html").read_text()
    return skeleton.replace("/* style */", style).replace("/* script */", script).encode()
