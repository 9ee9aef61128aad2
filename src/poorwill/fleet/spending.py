"""The spend breaker at work: looks at what was spent, blocks and unblocks replicas and keys, tells of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from poorwill.core.entries import Noted
from poorwill.core.errors import PoorwillError
from poorwill.core.inputs import SpendChanged
from poorwill.core.ports import KeyRing
from poorwill.core.spend import LimitState, Standing, Verdict
from poorwill.fleet.controller import Controller

JUMPS_EVERY = 30
"""Looks between two looks for an unexpected jump of the bill, which change slowly and cost more to find."""

Look = Callable[[], Awaitable[Verdict]]
FindJumps = Callable[[], Awaitable[Sequence[Noted]]]


@dataclass(slots=True, kw_only=True)
class SpendGuard:
    """What the last look found. Made before the fleet, so that the gateway's keys can ask it."""

    look: Look
    find_jumps: FindJumps
    every_s: float
    verdict: Verdict = field(default_factory=lambda: Verdict(at_us=0))
    _told: dict[str, Standing] = field(default_factory=dict)
    _told_jumps: set[str] = field(default_factory=set)

    async def first(self) -> None:
        """Look once before anything is served: what a limit stopped stays stopped across a restart."""
        self.verdict = await self.look()

    async def watch(self, controller: Controller) -> None:
        """Look again and again until cancelled. A look that fails changes nothing and is logged."""
        looks = 0
        while True:
            await asyncio.sleep(self.every_s)
            looks += 1
            try:
                self.verdict = await self.look()
                if looks % JUMPS_EVERY == 0:
                    self._tell_jumps(controller, await self.find_jumps())
            except PoorwillError as error:
                controller.log.warning("cannot look at what was spent", why=str(error))
                continue
            except Exception as error:  # a defect in the bill must not end the fleet
                controller.log.error("cannot look at what was spent", error=repr(error))
                continue
            self.apply(controller)

    def apply(self, controller: Controller) -> None:
        """Block and unblock replicas as the last look says. First called before any timer runs."""
        for unit in controller.units.values():
            stop = self.verdict.stops_model(unit.model)
            until_us = stop.ends_us if stop else None
            blocked = unit.replica.blocked
            if until_us != (blocked.until_us if blocked else None):
                why = stop.why if stop else ""
                controller.submit(unit, SpendChanged(until_us=until_us, why=why))
        for limit in self.verdict.limits:
            self._tell(controller, limit)

    def _tell(self, controller: Controller, limit: LimitState) -> None:
        """Tell when a limit's standing changes, once."""
        name = f"{limit.setting} {limit.name}".strip()
        before = self._told.get(name, Standing.WITHIN)
        if limit.standing is before:
            return
        self._told[name] = limit.standing
        kind = f"spend_{limit.standing}"
        text = (
            limit.why
            if limit.standing is not Standing.WITHIN
            else f"{name}: within its limit again"
        )
        controller.journal.post([Noted(at_us=controller.clock.now_us(), kind=kind, text=text)])
        controller.log.warning("spend limit", standing=limit.standing, why=text)

    def _tell_jumps(self, controller: Controller, found: Sequence[Noted]) -> None:
        new = [note for note in found if note.text and str(note.model) not in self._told_jumps]
        self._told_jumps = {str(note.model) for note in found}
        if new:
            controller.journal.post(new)
            for note in new:
                controller.log.warning("the bill jumps", why=note.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedKeys:
    """A key ring whose keys are refused while their spend limit is reached."""

    keys: KeyRing
    guard: SpendGuard
    now_us: Callable[[], int]

    @property
    def required(self) -> bool:
        """Whether a request must bring a key."""
        return self.keys.required

    def name_of(self, credential: bytes) -> str | None:
        """Return the key's name. Raises TryLater(SPEND_LIMIT) where its limit is reached."""
        name = self.keys.name_of(credential)
        if name is not None and self.guard.verdict.limits:
            stop = self.guard.verdict.stops_key(name)
            if stop is not None:
                raise stop.refusal(self.now_us())
        return name
