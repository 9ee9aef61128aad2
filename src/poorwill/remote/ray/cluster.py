"""The controller's way to Ray: a child process that speaks to it, started again when it is lost."""

import asyncio
import base64
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from poorwill.core.ports.driver import DriverError
from poorwill.core.ports.log import Log
from poorwill.remote.ray.calls import Call, CallAnswer, line, read_answer

START_S = 30.0
AGAIN_S = 1.0
QUICK_S = 10.0
"""For what Ray answers by itself."""
SETTLED_S = 30.0
"""How long a head that is new or back may take dead hosts for alive, and refuse what it should grant."""


class Cluster(Protocol):
    """What hosts are reached and leased through."""

    @property
    def settled(self) -> bool:
        """Whether a place that is refused now is taken."""
        ...

    async def call(self, host: str, call: Call) -> CallAnswer:
        """Have a host's service answer. Raises DriverError if it is out of reach. Cancelled: it sees that."""
        ...

    async def joined(self) -> frozenset[str]:
        """Return the hosts that places are granted on now. Raises DriverError."""
        ...

    async def lease(self, name: str, host: str, needs: Mapping[str, float], *, wait_s: float) -> bool:
        """Take a place on a host; return whether it was granted in time. Raises DriverError.

        Failed or cancelled: whether it is held is unknown, and `release` gives it back either way.
        """
        ...

    def keep(self, name: str, host: str, needs: Mapping[str, float]) -> None:
        """Hold a place in which an engine runs already, as soon as it is granted; no effect if it is held."""
        ...

    async def release(self, name: str) -> None:
        """Give a place back, if it is held. Raises DriverError."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class RayCluster:
    """A cluster of Ray. Implements `Cluster`. `run` keeps the child process that speaks to it."""

    head: str
    namespace: str
    environment: Mapping[str, str]
    log_path: Path
    log: Log
    held: dict[str, tuple[str, Mapping[str, float]]] = field(default_factory=dict)
    """The places that are held, on which host and of what: taken anew from a cluster that was lost."""
    _child: Process | None = None
    _up_at: float = 0.0
    _asked: int = 0
    _waiting: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    _up: asyncio.Event = field(default_factory=asyncio.Event)
    _missing: set[str] = field(default_factory=set)
    """The places that are held and that Ray has not granted yet."""
    _missed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def settled(self) -> bool:
        """See `Cluster.settled`."""
        return asyncio.get_running_loop().time() > self._up_at + SETTLED_S

    async def run(self) -> None:
        """Keep a child that speaks to Ray, until cancelled. Never raises otherwise."""
        told = ""
        while True:
            why = await self._live()
            if why != told:
                self.log.warning("Ray cannot be reached", head=self.head, why=why, log=str(self.log_path))
            told = why
            await asyncio.sleep(AGAIN_S)

    async def _live(self) -> str:
        """Start a child and read its answers until it ends; return why it did."""
        try:
            await self._converse()
        except (OSError, TimeoutError, ValueError) as error:
            return str(error) or "no answer"
        return "it was lost"

    async def _converse(self) -> None:
        with self.log_path.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "poorwill.remote.ray.link", self.head, self.namespace),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env={**self.environment},
                limit=64 * 2**20,
                start_new_session=True,
            )
        assert child.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                await child.stdout.readline()
            if child.returncode is None:
                self._child = child
                async with asyncio.TaskGroup() as group:
                    again = group.create_task(self._take_anew())
                    await self._read(child.stdout)
                    again.cancel()
        finally:
            self._child = None
            self._up.clear()
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            waiting, self._waiting = self._waiting, {}
            for answer in waiting.values():
                if not answer.done():
                    answer.set_exception(DriverError("the connection to Ray was lost"))

    async def _read(self, answers: asyncio.StreamReader) -> None:
        """Read the child's answers until it ends, or says what is none."""
        try:
            while text := await answers.readline():
                self._answered(json.loads(text))
        except (OSError, ValueError) as error:
            self.log.error("what speaks to Ray is not understood", why=str(error))

    async def _take_anew(self) -> None:
        """Rebuild what Ray knows from what is held: a head that was lost may have forgotten it.

        A host may join a new head later than the controller: its places are asked for again until then.
        """
        self._missing = set(self.held)
        while True:
            try:
                if not self._up.is_set():
                    await self._ask({"do": "clear"})
                self._missing -= await self._lease_all(self._missing & self.held.keys())
                if not self._up.is_set():
                    self._up_at = asyncio.get_running_loop().time()
                self._up.set()
                if not self._missing & self.held.keys():
                    self._missed.clear()
                    await self._missed.wait()
            except DriverError as error:
                self.log.warning("the places on hosts could not all be taken anew", why=str(error))
            await asyncio.sleep(AGAIN_S)

    async def _lease_all(self, names: Collection[str]) -> set[str]:
        """Take places again; return the names of those granted. Raises DriverError."""

        async def one(name: str) -> bool:
            host, needs = self.held[name]
            return await self._lease(name, host, needs, wait_s=AGAIN_S)

        granted = await asyncio.gather(*map(one, names))
        return {name for name, is_granted in zip(names, granted, strict=True) if is_granted}

    def _answered(self, said: Mapping[str, Any]) -> None:
        answer = self._waiting.pop(said["id"], None)
        if answer is None or answer.done():
            return
        if "error" in said:
            answer.set_exception(DriverError(f"Ray: {said['error']}"))
        else:
            answer.set_result(said["ok"])

    async def _ask(self, what: Mapping[str, Any], *, within_s: float | None = START_S) -> Any:
        if self._child is None:
            raise DriverError("Ray cannot be reached now")
        self._asked += 1
        number, answer = self._asked, asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._write({"id": number, **what})
        try:
            async with asyncio.timeout(within_s):
                return await answer
        except TimeoutError:
            self._waiting.pop(number, None)
            raise DriverError("Ray does not answer") from None
        except asyncio.CancelledError:
            self._waiting.pop(number, None)
            if what["do"] == "call":
                self._asked += 1
                self._write({"id": self._asked, "do": "cancel", "of": number})
            raise

    def _write(self, what: Mapping[str, Any]) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.write(json.dumps(what).encode() + b"\n")

    async def call(self, host: str, call: Call) -> CallAnswer:
        """See `Cluster.call`."""
        await self._reached()
        text = base64.b64encode(line(call)).decode()
        answer = await self._ask({"do": "call", "host": host, "call": text}, within_s=None)
        return read_answer(base64.b64decode(answer))

    async def joined(self) -> frozenset[str]:
        """See `Cluster.joined`."""
        await self._reached()
        return frozenset(await self._ask({"do": "hosts"}, within_s=QUICK_S))

    async def lease(self, name: str, host: str, needs: Mapping[str, float], *, wait_s: float) -> bool:
        """See `Cluster.lease`."""
        await self._reached()
        self.held[name] = host, needs
        self._missing.discard(name)
        granted = await self._lease(name, host, needs, wait_s=wait_s)
        if not granted:
            del self.held[name]
        return granted

    async def _lease(self, name: str, host: str, needs: Mapping[str, float], *, wait_s: float) -> bool:
        asked = {"do": "lease", "name": name, "host": host, "needs": dict(needs), "wait_s": wait_s}
        return bool(await self._ask(asked))

    def keep(self, name: str, host: str, needs: Mapping[str, float]) -> None:
        """See `Cluster.keep`."""
        if name not in self.held:
            self.held[name] = host, needs
            self._missing.add(name)
            self._missed.set()

    async def release(self, name: str) -> None:
        """See `Cluster.release`. What cannot be given back now is not taken anew."""
        if self.held.pop(name, None) is not None:
            await self._ask({"do": "release", "name": name}, within_s=QUICK_S)

    async def _reached(self) -> None:
        """Return when Ray can be asked. Raises DriverError if it cannot for a while."""
        try:
            async with asyncio.timeout(QUICK_S):
                await self._up.wait()
        except TimeoutError:
            raise DriverError(f"Ray at {self.head} cannot be reached") from None
