"""What the wake benchmark times beside parks and wakes: a copy, a read, a first token; the page cache."""

import http.client
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

BLOCK = 4 * 2**20


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def drop_page_cache() -> bool:
    """Write back and drop this machine's page cache; False where that is not permitted.

    What a hypervisor or a disk keeps of its own is not dropped by it.
    """
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def files_under(place: Path) -> list[Path]:
    return sorted(path for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file())


def read_s(files: Iterable[Path]) -> float:
    """Time to read files through, one after the other, as `cat FILES >/dev/null` does."""

    def read() -> None:
        buffer = bytearray(BLOCK)
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    return timed(read)


def copy_s(files: Iterable[Path], target: Path) -> float:
    """Time to copy files and sync them, as `cp FILES DIR; sync DIR/*` does. The copy is removed again."""
    target.mkdir()

    def copy() -> None:
        for number, path in enumerate(files):
            copied = target / str(number)
            shutil.copyfile(path, copied)
            descriptor = os.open(copied, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    try:
        return timed(copy)
    finally:
        shutil.rmtree(target)


def first_token_s(host: str, port: int, model: str, *, limit_s: float = 600.0) -> float:
    """Time from a streamed request to its first token."""
    return _stream(host, port, model, 2, limit_s)[0]


def tokens_s(host: str, port: int, model: str, *, count: int, limit_s: float = 600.0) -> float:
    """Tokens a second after the first, of a stream of `count`."""
    times = _stream(host, port, model, count, limit_s)
    return (len(times) - 1) / (times[-1] - times[0])


def _stream(host: str, port: int, model: str, count: int, limit_s: float) -> list[float]:
    """Return when each event of a stream came, in seconds since the request."""
    connection = http.client.HTTPConnection(host, port, timeout=limit_s)
    body = {"model": model, "prompt": "The common poorwill is", "max_tokens": count, "temperature": 0}
    headers = {"content-type": "application/json", "connection": "close"}
    began = time.perf_counter()
    try:
        connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"the engine answered {answer.status}: {answer.read()[:200]!r}")
        times = [time.perf_counter() - began for line in answer if line.startswith(b"data:")]
    finally:
        connection.close()
    if len(times) < 2:
        raise RuntimeError("the stream held no token")
    return times
