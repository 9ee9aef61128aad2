"""How paths in a configuration are read."""

from posixpath import join, normpath


def absolute_path(path: str, *, base: str, home: str) -> str:
    """Return a path as counted from the directory `base`; `~` is the home directory, if there is one."""
    if home and (path == "~" or path.startswith("~/")):
        path = home + path[1:]
    return normpath(join(base, path))
