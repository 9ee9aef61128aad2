"""What requests are checked against, and a complete request that was let in."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from poorwill.core.ports.clock import Clock
from poorwill.core.ports.keys import KeyRing
from poorwill.core.ports.log import Log
from poorwill.core.settings import GatewaySettings
from poorwill.core.settings.addresses import is_loopback
from poorwill.gateway.downstream.head_checks import Head, HeadRules
from poorwill.gateway.downstream.request_memory import RequestMemory
from poorwill.gateway.downstream.spool import Spool
from poorwill.gateway.routes import Route


@dataclass(slots=True, kw_only=True)
class Checks:
    """What all connections check their requests against."""

    settings: GatewaySettings
    """As they are now: a reload changes them."""
    keys: KeyRing
    clock: Clock
    log: Log
    memory: RequestMemory
    disk: RequestMemory
    """Counts the forms that are too large for memory."""
    new_spool: Callable[[], Spool]
    public: bool
    """Whether the listener can be reached from other machines."""

    def rules(self) -> HeadRules:
        """Return what a head is checked against now: whether keys are required may change at any time."""
        return HeadRules(settings=self.settings, keys_required=self.keys.required)


def new_checks(*, settings: GatewaySettings, keys: KeyRing, clock: Clock, log: Log, directory: str) -> Checks:
    """Return the checks of a gateway that keeps large forms in a directory."""
    return Checks(
        settings=settings,
        keys=keys,
        clock=clock,
        log=log,
        memory=RequestMemory(limit_bytes=settings.max_receiving_bytes),
        disk=RequestMemory(limit_bytes=settings.max_uploads_bytes),
        new_spool=lambda: Spool(directory),
        public=not is_loopback(settings.listen.host),
    )


class Incoming(msgspec.Struct, kw_only=True, eq=False):
    """A complete request that was let in. A Struct, because making one costs a third of a dataclass."""

    head: Head
    route: Route
    key: str
    body: bytes
    """Empty if the body is in a `spool`."""
    keep_alive: bool
    arrived_us: int
    memory: RequestMemory
    counted_bytes: int = 0
    spool: Spool | None = None

    def drop_body(self) -> None:
        """Free the body's memory: no retry follows. Idempotent."""
        self.body = b""
        if self.counted_bytes:
            self.memory.give_back(self.key, self.counted_bytes)
            self.counted_bytes = 0
        if self.spool is not None:
            self.spool.close()
