"""Runs one history: lives of poorwill over one machine and one ledger."""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.kept_log import KeptLog

from .account import Account
from .clients import Clients
from .disk import SimulatedLedger, new_ledger
from .history import History
from .laws import Broken, check_books
from .life import Configured, Life
from .loop import START_US, Killed, VirtualClock, VirtualLoop
from .weather import SimulatedWorld, Weather

MOST_LIVES = 200
MOSTLY = 0.9
"""The share of lives whose ledger writes as late as it may; the others write each batch by itself."""
TROUBLE = frozenset(
    {
        "entries are not on disk",
        "cannot look for what exists",
        "cannot end an engine",
        "cannot discard",
        "the last sign of life is not on disk",
        "engines run on and nobody serves them",
    }
)
"""Errors in the log that the weather accounts for; any other one is a bug."""


@dataclass(slots=True)
class Result:
    """What came of a history."""

    wakes: int
    asked: int
    lives: int
    ended: Counter[str] = field(default_factory=Counter)
    met: Counter[object] = field(default_factory=Counter)


@dataclass
class Run:
    """One history on its way."""

    history: History
    directory: Path
    now_us: int = START_US
    account: Account = field(default_factory=Account)
    clients: Clients = field(default_factory=Clients)
    log: KeptLog = field(default_factory=KeptLog)
    failures: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = self.directory / "ledger.sqlite"
        self.world = SimulatedWorld(weather=Weather(self.history.seed, calm=self.history.calm))
        self.world.gpus, self.world.keeps_bytes = self.history.gpus, self.history.keeps_bytes
        self.configured = [Configured(model, number) for number, model in enumerate(self.history.models)]
        self.random = random.Random(f"lives {self.history.seed}")
        self.events = list(self.history.events)

    def go(self) -> Result:
        """Run the history to its end. Raises Broken where a law does not hold."""
        self.path.write_bytes(new_ledger())
        lives = 0
        while lives == 0 or self.events or self.killed:
            self._live()
            lives += 1
            if lives > MOST_LIVES:
                raise Broken("a fleet that never gets through its history")
        check_books(self.path, self.account)
        self.clients.check_all_ended()
        return Result(
            wakes=self.account.wakes,
            asked=self.clients.asked,
            lives=lives,
            ended=self.clients.ended,
            met=Counter(self.world.weather.met),
        )

    def _live(self) -> None:
        """Start poorwill and let it live, to its shutdown or its kill. Raises Broken."""
        loop = VirtualLoop(self.now_us)
        loop.set_exception_handler(self._unhandled)
        ledger = SimulatedLedger(
            path=str(self.path),
            clock=VirtualClock(loop),
            account=self.account,
            random=self.random,
            late=self.random.random() < MOSTLY,
        )
        life = Life(
            history=self.history,
            events=self.events,
            configured=self.configured,
            loop=loop,
            ledger=ledger,
            world=self.world,
            clients=self.clients,
            log=self.log,
            random=self.random,
        )
        self.killed = False
        self.world.ends.clear()  # whoever waited for an engine's end waited on the loop of another life
        try:
            loop.run_until_complete(life.live())
            loop.close()
        except Killed:
            self.killed = True
            self._bury(loop, ledger)
        except Exception as error:
            self.failures.append(_first(error))
            self._bury(loop, ledger)
        self.account, self.now_us = ledger.account, loop.now_us
        self._judge()

    def _unhandled(self, loop: object, context: dict[str, object]) -> None:
        if "exception" in context:
            self.failures.append(context["exception"])

    def _bury(self, loop: VirtualLoop, ledger: SimulatedLedger) -> None:
        """Keep what a kill leaves: the machine, and of the ledger what is on disk.

        Python runs `finally` blocks when it clears the dead life away. They get copies to act upon.
        """
        try:
            ledger.kill(self.directory)
        except Exception as error:  # what it had promised cannot be written
            self.failures.append(_first(error))
        self.world, self.clients, self.log = self.world.copy(), self.clients.killed(), KeptLog()
        loop.set_exception_handler(lambda _, context: None)
        tasks = asyncio.all_tasks(loop)
        loop.close()
        for task in tasks:
            coroutine = task.get_coro()
            for _ in range(20):  # one that awaits in its `finally` asks to be closed again
                with contextlib.suppress(BaseException):
                    coroutine.close()
                    break

    def _judge(self) -> None:
        defects = [line for line in self.log.lines if line[0] == "error" and line[1] not in TROUBLE]
        self.failures += self.world.broken
        if self.failures:
            first = self.failures[0]
            raise Broken(repr(first)) from (first if isinstance(first, Exception) else None)
        if defects:
            raise Broken(f"a defect: {defects[0]}")
        self.log.lines.clear()


def _first(error: BaseException) -> BaseException:
    """Return the first law broken, or defect, in a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
