"""The part of the fleet that wakes, parks, watches and sweeps may use."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from poorwill.core.machine.inputs import Input
from poorwill.core.ports.activator import Connections
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.log import Log
from poorwill.core.words import ModelName
from poorwill.fleet.journal import Journal
from poorwill.fleet.unit import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetContext:
    """What carrying out an effect needs of the fleet. Results go back as inputs, through `submit`."""

    units: Mapping[ModelName, Unit]
    journal: Journal
    connections: Connections
    clock: Clock
    log: Log
    tasks: asyncio.TaskGroup
    submit: Callable[[Unit, Input], None]
    """Takes an input; see `Controller.submit`."""
    make_room: Callable[[Unit], Awaitable[None]]
    """Returns when a unit's replica fits; see `Room.make`."""
