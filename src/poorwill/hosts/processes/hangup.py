"""What SIGHUP means: a closed terminal ends what runs in it; otherwise somebody asks for a reload."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress


def hear_hangups(*, end: Callable[[], object], reload: Callable[[], object] | None = None) -> None:
    """From now on SIGHUP calls `end` if the terminal that is there now is gone by then, else `reload`.

    It never ends the process by itself. Where it is ignored, as `nohup` has it, it stays so. Outside the main
    thread, which alone gets signals, nothing happens.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    had_terminal = has_terminal()

    def hung_up() -> None:
        if had_terminal and not has_terminal():
            end()
        elif reload is not None:
            reload()

    with suppress(ValueError, RuntimeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


def has_terminal() -> bool:
    """Return whether the process has a controlling terminal; one that was hung up is none (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
