"""One rented machine: what is known of it, and how it is brought from any state to the wanted one.

The cloud's requests have side effects and cannot be told apart from their repetition. So nothing is asked
without having looked, what follows from a look is a table, and a request is repeated only if the
machine has not moved for a while, and only so often.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from poorwill.core.ports.driver import DriverError, NoCapacity
from poorwill.hosts.files.reach import Reach
from poorwill.remote.clouds.cloud import (
    Cloud,
    CloudAction,
    CloudBusy,
    CloudRefused,
    MachineState,
    MachineStatus,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A wanted state, and what to ask for in each state on the way to it; in any other state, wait."""

    word: str
    enough: frozenset[MachineState]
    moves: Mapping[MachineState, CloudAction]


_DOWN = MappingProxyType(
    # One that is off can only be hibernated from running, and is billed as if it ran.
    {MachineState.RUNNING: CloudAction.HIBERNATE, MachineState.OFF: CloudAction.START}
)
RUN = Goal(
    word="running",
    enough=frozenset({MachineState.RUNNING}),
    moves=MappingProxyType({MachineState.PARKED: CloudAction.RESTORE, MachineState.OFF: CloudAction.START}),
)
PARK = Goal(word="hibernated", enough=frozenset({MachineState.PARKED}), moves=_DOWN)
RELEASE = Goal(
    word="on its way to be hibernated",
    enough=frozenset({MachineState.PARKED, MachineState.PARKING}),
    moves=_DOWN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a cloud is asked. Hyperstack allows 500 requests a minute from one address."""

    first_look_s: float = 1.0
    longest_look_s: float = 10.0
    """Between two checks of a machine in transition; the interval grows from the first to the second."""
    retry_s: float = 1.0
    """Before an unanswered request is made again; doubles each time (Hyperstack's own advice)."""
    longest_retry_s: float = 60.0
    attempts: int = 5
    """Attempts of one request that gets no answer or changes nothing."""
    unmoved_s: float = 60.0
    """How long a machine may keep its state after the cloud accepted a request."""


@dataclass(slots=True, kw_only=True)
class _Asked:
    """The progress of one request so far."""

    state: MachineState
    times: int = 0
    not_before: float = 0.0
    """On the event loop's clock."""
    moved: bool = False
    """The machine has left the state in which it was asked."""


@dataclass(slots=True, kw_only=True)
class RentedMachine:
    """A machine at a cloud. Changes take turns; reading its state needs none."""

    cloud: Cloud
    id: str
    host: str
    port: int
    """The address its engine serves at. A host in braces is whatever the cloud says that it is now."""
    reach: Reach
    """How that is asked."""
    pace: Pace = field(default_factory=Pace)
    seen: MachineStatus | None = None
    """Its state at the last check; None before the first."""
    unwanted: bool = False
    """Released and not seen parked yet: it may still be recalled."""
    touched: bool = False
    """Whether its cloud was asked for a change since the machine was last wanted running."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def named(self) -> str:
        """The machine's name in the ledger and for people."""
        return f"{self.cloud.name} {self.id}"

    @property
    def floating(self) -> bool:
        """Whether the machine may have another address each time it runs."""
        return self.host.startswith("{")

    @property
    def address(self) -> str:
        """The host its engine serves at now; empty if it has none, or that is not known."""
        if not self.floating:
            return self.host
        return self.seen.hosts.get(self.host, "") if self.seen is not None else ""

    @property
    def here(self) -> Reach:
        """How its engine is asked at the address that it has now."""
        return replace(self.reach, url=self.reach.url._replace(host=self.address))

    async def look(self, *, attempts: int = 0) -> MachineStatus:
        """Return what it does now, asking up to `attempts` times (0: as the pace says) for an answer.

        Raises what `Cloud.state` raises. Cancelled: nothing was changed.
        """
        self.seen = await self._tried(lambda: self.cloud.state(self.id), attempts or self.pace.attempts)
        if self.seen.state is MachineState.PARKED:
            self.unwanted = False
        return self.seen

    async def bring_to(self, goal: Goal, *, limit_s: float) -> None:
        """Return when the machine is where it is wanted, from whatever state; waits for its turn.

        Raises DriverError if it cannot be brought there within `limit_s`: CloudRefused, MachineGone and
        NoCapacity as they are. Cancelled: a request under way is first answered, so that `seen` tells what
        the machine does; then it is left to its cloud, which goes on with what it has taken on.
        """
        try:
            async with asyncio.timeout(limit_s), self.turn:
                await self._brought(goal)
        except TimeoutError:
            raise DriverError(
                f"{self.named} was not {goal.word} within {limit_s:g} s: its state is {self._word}"
            ) from None

    async def release(self, *, limit_s: float) -> None:
        """Return when the machine is hibernated or on its way there, so that its cloud goes on alone.

        `unwanted` stays set until a look finds it parked, so that a sweep that finds it paid for tries again.
        Raises as `bring_to` does. Cancelled: likewise.
        """
        self.unwanted = True
        await self.bring_to(RELEASE, limit_s=limit_s)

    @property
    def at_rest(self) -> bool:
        """Whether nothing was asked of its cloud since it was to run, and nothing needs to be."""
        idle = (MachineState.PARKED, MachineState.FAILED)
        return not self.touched and (self.seen is None or self.seen.state in idle)

    async def run(self, *, limit_s: float) -> bool:
        """Return when the machine runs and has its address; whether it ran all along.

        Raises and cancelled as `bring_to`.
        """
        self.unwanted = self.touched = False
        ran = (await self.look()).state is MachineState.RUNNING
        await self.bring_to(RUN, limit_s=limit_s)
        for _ in range(self.pace.attempts):  # an address can show a moment after the state
            if self.address:
                return ran and not self.touched
            await asyncio.sleep(self.pace.first_look_s)
            await self.look()
        raise DriverError(f"{self.named} runs, and its cloud gave it no address for {self.host}")

    async def reboot(self) -> None:
        """Return when the cloud has taken on a hard reboot.

        Asked for again if it does not say so: a second reboot costs time and nothing else. Raises what
        `Cloud.ask` raises. Cancelled: after the answer to a request under way, if there is one.
        """
        await self._tried(lambda: self.request(CloudAction.REBOOT), self.pace.attempts)

    async def _tried(self, ask: Callable[[], Awaitable[T]], attempts: int) -> T:
        """Ask until the cloud is not busy, at most so many times, with growing delays in between."""
        for attempt in range(attempts - 1):
            try:
                return await ask()
            except CloudBusy as busy:
                await asyncio.sleep(self._wait_s(busy, self.pace.retry_s * 2**attempt))
        return await ask()

    async def _brought(self, goal: Goal) -> None:
        asked: dict[CloudAction, _Asked] = {}
        delay_s = self.pace.first_look_s
        while (seen := await self.look()).state not in goal.enough:
            if seen.state is MachineState.FAILED:
                raise DriverError(f"{self.named} is in state {seen.word}: see its cloud's console")
            if seen.failure is not None and asked:
                raise seen.failure
            _note_moves(asked, seen.state)
            verb = goal.moves.get(seen.state)
            if verb is not None and await self._ask(
                verb, seen, asked.setdefault(verb, _Asked(state=seen.state))
            ):
                delay_s = self.pace.first_look_s
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.5, self.pace.longest_look_s)

    async def _ask(self, verb: CloudAction, seen: MachineStatus, asked: _Asked) -> bool:
        """Ask for a change, unless that was done and may yet have its effect; return whether it was asked."""
        now = asyncio.get_running_loop().time()
        if asked.moved:
            raise self._came_back(verb, seen)
        if now < asked.not_before:
            return False
        if asked.times == self.pace.attempts:
            raise DriverError(f"{self.named} stays {seen.word}, though asked {asked.times} times to {verb}")
        backoff_s = self.pace.retry_s * 2**asked.times
        asked.times += 1
        try:
            await self.request(verb)
            asked.not_before = now + self.pace.unmoved_s
        except CloudBusy as busy:
            if asked.times == self.pace.attempts:
                raise
            asked.not_before = now + self._wait_s(busy, backoff_s)
        except CloudRefused:
            if (await self.look()).state is seen.state:
                raise
            # It had moved between the look and the request, which was then rightly refused.
        return True

    async def request(self, verb: CloudAction) -> None:
        """Ask once. Cancelled: the answer is waited for, which the client bounds; cancelled again: not that.

        A request abandoned half-way would leave it open for minutes whether the machine is paid for.
        """
        self.touched = True
        answered, errors = asyncio.Event(), list[DriverError]()

        async def asking() -> None:
            try:
                await self.cloud.ask(self.id, verb)
                self.seen = MachineStatus(state=MachineState.MOVING, word=f"asked to {verb}")
            except DriverError as error:
                errors.append(error)
            finally:
                answered.set()

        try:
            await asyncio.shield(asking())
        except asyncio.CancelledError:
            await answered.wait()
            raise
        if errors:
            raise errors[0]

    def _came_back(self, verb: CloudAction, seen: MachineStatus) -> DriverError:
        if verb is CloudAction.RESTORE:
            return NoCapacity(
                f"{self.named} is {seen.word} again after it was asked to {verb}: most likely its cloud has "
                "no such machine free"
            )
        return DriverError(f"{self.named} is {seen.word} again after it was asked to {verb}")

    def _wait_s(self, busy: CloudBusy, delay_s: float) -> float:
        wanted = busy.retry_after_s if busy.retry_after_s is not None else delay_s
        return min(wanted, self.pace.longest_retry_s)

    @property
    def _word(self) -> str:
        return self.seen.word if self.seen is not None else "not known"


def _note_moves(asked: Mapping[CloudAction, _Asked], state: MachineState) -> None:
    for each in asked.values():
        if state is not each.state:
            each.moved = True
