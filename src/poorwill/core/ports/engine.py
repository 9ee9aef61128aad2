"""What is particular to one kind of engine.

Cancellation: as in `core.ports.driver`.
"""

from collections.abc import Sequence
from typing import Protocol

from poorwill.core.launch import Launch, PhaseMark, Place, Running
from poorwill.core.ports.driver import Report
from poorwill.core.words import ReplicaId

UNANSWERED = "?"
"""Vital signs of an engine whose health answers and whose counters do not."""


class Engine(Protocol):
    """What is particular to one kind of engine."""

    @property
    def name(self) -> str:
        """The engine's name, as in `fleet.toml`."""
        ...

    def launch(
        self, *, replica: ReplicaId, generation: int, anew: bool = False, place: Place | None = None
    ) -> Launch:
        """Return how to start the replica; reads the model file's size, never its weights.

        `anew`: it is started from nothing now, so that nothing depends on its last address. `place`: the
        devices it is to see; None: what poorwill itself sees. Raises
        OperatorFault if the model file is missing or is no model.
        """
        ...

    async def follow(self, launch: Launch, report: Report) -> None:
        """Read the engine's log as it grows from now on and report the phases it shows.

        Runs until cancelled, and then reads what is left of the log. Robust to unknown lines, colours,
        several processes and a flood.
        """
        ...

    async def ready(self, running: Running, launch: Launch) -> None:
        """Return when the engine answers its readiness path and one synthetic request (the warm-up)."""
        ...

    async def probe(self, running: Running, launch: Launch) -> str:
        """Return the engine's answer to a fixed greedy prompt; the same before a park and after a wake.

        Raises DriverError if it answers nothing usable.
        """
        ...

    async def vital_signs(self, running: Running, launch: Launch) -> str | None:
        """Return what changes as the engine works (its counters and slots), empty if it tells nothing.

        `UNANSWERED` if it does not answer that within seconds, None if not even its health. Never raises.
        """
        ...

    def refine(
        self, launch: Launch, marks: Sequence[PhaseMark], began_us: int, ended_us: int
    ) -> Sequence[PhaseMark]:
        """Return the marks of a finished wake, corrected by what the log reported only afterwards."""
        ...
