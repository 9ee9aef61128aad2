"""One driver call at a time for each replica: a second wake, or a park during a wake, is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from poorwill.core.ports.driver import DriverError
from poorwill.core.words import ReplicaId


@dataclass(slots=True, kw_only=True)
class Exclusive:
    """What each replica is busy with."""

    doing: dict[ReplicaId, str] = field(default_factory=dict)

    @contextmanager
    def during(self, replica: ReplicaId, what: str) -> Iterator[None]:
        """Hold the replica for the block. Raises DriverError if something else holds it."""
        other = self.doing.get(replica)
        if other is not None:
            raise DriverError(f"replica {replica} cannot {what}: a {other} is under way")
        self.doing[replica] = what
        try:
            yield
        finally:
            del self.doing[replica]
