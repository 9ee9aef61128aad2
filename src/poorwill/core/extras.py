"""How an optional dependency is installed: into the environment that runs poorwill, not the shell's."""

import shlex
import sys
from importlib.util import find_spec


def install_extra(name: str) -> str:
    """Return the command that installs what an extra of poorwill's needs."""
    ours = f"{shlex.quote(sys.executable)} -m " if find_spec("pip") else ""
    return f"{ours}pip install 'poorwill[{name}]'"
