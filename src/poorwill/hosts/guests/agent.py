"""The program that keeps a guest's clock right; it runs inside the virtual machine, never on the host.

It reads one request a line from a serial port and answers each with a line:

    set NANOSECONDS SEED    set CLOCK_REALTIME to the host's time and stir SEED (hexadecimal) into the
                            kernel's random numbers; answers `set BEHIND`, in nanoseconds
    time                    answers `time NANOSECONDS`, what the guest's clock says

A restored guest would otherwise live in the time of its park, and two guests restored from one image
would draw the same random numbers (Brooker et al., arXiv 2102.12892). It imports nothing of the project.
"""

import fcntl
import struct
import termios
import time
import tty

PORT = "/dev/ttyS1"

_ADD_ENTROPY = 0x40085203  # RNDADDENTROPY, random(4)
_RESEED = 0x5207  # RNDRESEEDCRNG, random(4)


def answer(line: str) -> str:
    """Return the answer to one request."""
    words = line.split()
    match words:
        case ["set", nanoseconds, seed]:
            stir(bytes.fromhex(seed))
            return f"set {set_clock(int(nanoseconds))}"
        case ["time"]:
            return f"time {time.clock_gettime_ns(time.CLOCK_REALTIME)}"
        case _:
            return "unknown"


def set_clock(nanoseconds: int) -> int:
    """Set the clock and return by how many nanoseconds it was behind."""
    behind = nanoseconds - time.clock_gettime_ns(time.CLOCK_REALTIME)
    time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)
    return behind


def stir(seed: bytes) -> None:
    """Add `seed` to the kernel's random numbers and have it draw from the new state at once."""
    with open("/dev/urandom", "wb", buffering=0) as source:
        packed = struct.pack(f"ii{len(seed)}s", len(seed) * 8, len(seed), seed)
        fcntl.ioctl(source, _ADD_ENTROPY, packed)
        fcntl.ioctl(source, _RESEED)


def serve(path: str) -> None:
    """Answer requests on a serial port for ever."""
    with open(path, "r+b", buffering=0) as port:
        tty.setraw(port.fileno(), termios.TCSANOW)
        pending = b""
        while True:
            pending += port.read(256)
            *lines, pending = pending.split(b"\n")
            for line in lines:
                port.write(_safely(line.decode("ascii", "replace")).encode() + b"\n")


def _safely(line: str) -> str:
    try:
        return answer(line)
    except (OSError, ValueError) as error:
        return f"failed: {error}"


if __name__ == "__main__":
    serve(PORT)
