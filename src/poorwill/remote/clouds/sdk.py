"""Clouds that are asked through their vendor's own SDK, which blocks: each call has a thread of its own.

An SDK is an extra, imported with the first call. It finds its credentials by itself. Its own retries are off:
`machine.py` counts and paces attempts for all clouds alike.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, TypeVar

from poorwill.core.extras import install_extra
from poorwill.core.ports.driver import DriverError
from poorwill.remote.clouds.cloud import CloudBusy, CloudRefused

T = TypeVar("T")


class BadCredentials(CloudRefused):
    """The SDK found no credentials, or the cloud does not take them."""


@dataclass(slots=True, kw_only=True)
class SdkCloud:
    """What the clients have in common. One of them is enough for all machines of an account."""

    api: str = ""
    answer_limit_s: float = 20.0
    opening_limit_s: float = 90.0
    """For importing the SDK and finding credentials: seconds on a small machine."""
    opened: dict[str, Any] = field(default_factory=dict, repr=False)
    """The SDK's clients, by what they were opened for."""
    opening: threading.Lock = field(default_factory=threading.Lock, repr=False)

    name: ClassVar[str] = ""
    """The cloud's name, as in `fleet.toml`."""

    def open(self, what: str) -> Any:
        """Return a new client of the SDK. Blocks."""
        raise NotImplementedError

    def error(self, machine: str, error: Exception) -> DriverError:
        """Return what an exception of the SDK means to the caller."""
        raise NotImplementedError

    async def call(self, machine: str, what: str, ask: Callable[[Any], T]) -> T:
        """Return what the SDK's client for `what` answers.

        Raises as `Cloud.state`, and NoCapacity. Cancelled or out of time: the thread goes on alone, within
        the SDK's own timeouts, and nobody hears of its answer.
        """
        try:
            client = await in_own_thread(partial(self._client, what), limit_s=self.opening_limit_s)
            return await in_own_thread(partial(ask, client), limit_s=self.answer_limit_s)
        except ImportError as error:
            raise CloudRefused(f"{error.name} is not installed: {install_extra(self.name)}") from error
        except TimeoutError as error:
            raise CloudBusy(f"no answer from {self.name}: TimeoutError") from error
        except DriverError:
            raise
        except Exception as error:  # each SDK has several families, and the library's below it
            known = self.error(machine, error)
            if isinstance(known, BadCredentials):
                self.opened.pop(what, None)  # the next one looks for them anew
            raise known from error

    def _client(self, what: str) -> Any:
        with self.opening:
            if what not in self.opened:
                self.opened[what] = self.open(what)
            return self.opened[what]


async def in_own_thread(call: Callable[[], T], *, limit_s: float) -> T:
    """Return what a blocking call returns, or raise what it raises; TimeoutError after `limit_s`.

    The thread is a daemon, not one of the loop's executor: a shutdown does not wait for a silent cloud.
    Cancelled: the thread is left to itself.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        if not answer.done():
            settle()

    def work() -> None:
        try:
            settle = partial(answer.set_result, call())
        except Exception as error:
            settle = partial(answer.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, settle)

    threading.Thread(target=work, name="cloud", daemon=True).start()
    async with asyncio.timeout(limit_s):
        return await answer
