"""The port `Engine` for every kind of engine that serves HTTP: they differ by recipe and dialect only.

It owns what is known of the wake under way of each replica: the log reader and the marks. It starts and
ends no process, and keeps no connection.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.launch import Launch, PhaseMark, Place, Running
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.driver import DriverError, Report
from poorwill.core.settings import ModelSettings
from poorwill.core.words import SECOND_US, Phase, ReplicaId
from poorwill.engines.asking import Endpoint, NoQuestion, answers, greedy_text, vital_signs, warm_up
from poorwill.engines.dialects.log_facts import Dialect
from poorwill.engines.dialects.vllm import settle_compilation
from poorwill.engines.log_file import LogReader, Timeline
from poorwill.engines.measured.expectation import expected_rate
from poorwill.engines.measured.free_memory import free_for_cache
from poorwill.engines.measured.process_io import IoTrack, with_notes
from poorwill.engines.port_choice import replica_port
from poorwill.engines.recipe import LaunchContext, Prepare, Recipe, linked
from poorwill.engines.sleeping import FORGETFUL_SLEEPS
from poorwill.hosts.containers.run_line import container_name
from poorwill.hosts.files.aside import in_thread
from poorwill.hosts.files.growing_log import LogFile
from poorwill.hosts.files.names import file_name
from poorwill.hosts.files.reach import Reach, reach_of
from poorwill.hosts.files.read_ahead import ReadAhead
from poorwill.hosts.files.user import EngineUser, engine_user
from poorwill.policies.coldstart.anatomy import anatomy
from poorwill.policies.coldstart.leaves import as_marks

_LOOK_SHARE, _SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.01, 0.005, 0.05
"""Between two looks at the log and the bytes read: how late a phase without a stamp of its own can be. A
hundredth of the wake so far, so that of a short one the short phases have their own bytes."""
_POLL_SHARE, _SHORTEST_POLL_S, _LONGEST_POLL_S = 0.05, 0.01, 0.25
"""Polls of the readiness path: so that finding out late costs at most a twentieth of the wake."""
_POLL_TIMEOUT_S = 5.0
_MOST_CACHED_FILES = 10_000
_BEFORE_WEIGHTS = (None, Phase.SPAWN, Phase.IMPORTS, Phase.CONTEXT)
"""Then an engine reads small files, one after the other, and each waits behind what is read ahead."""


@dataclass(slots=True, kw_only=True)
class _Wake:
    reader: LogReader
    io: IoTrack
    ahead: ReadAhead | None = None
    anew: bool = False
    """It is a start."""
    expected_rate: float | None = None
    """Bytes a second that this machine's storage is known to read."""
    report: Report | None = None
    note: str = ""
    marks: list[PhaseMark] = field(default_factory=list)

    def mark(self, phase: Phase, at_us: int, detail: str = "") -> None:
        found = PhaseMark(phase=phase, at_us=at_us, detail=detail)
        self.marks.append(found)
        self.tell(found)

    def tell(self, mark: PhaseMark) -> None:
        if self.report is not None:
            self.report(mark)

    def watch(self, stop: threading.Event, tell: Callable[[PhaseMark], object]) -> None:
        """Read the log and the counters until `stop` is set, then what is left of the log. Blocks."""
        told: Phase | None = None
        clock = self.reader.timeline.clock
        began_us, passed_s = clock.now_us(), 0.0
        while not stop.wait(min(max(passed_s * _LOOK_SHARE, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)):
            for mark in self.reader.look():
                if mark.ended_us is None and mark.phase is not told:
                    told = mark.phase
                    tell(mark)
            now_us = clock.now_us()
            self.io.look(now_us)
            if self.anew and self.ahead is not None:
                self.ahead.rest(rest=told in _BEFORE_WEIGHTS and self.io.busy(now_us))
            passed_s = (now_us - began_us) / SECOND_US
        self.reader.finish()


@dataclass(slots=True, kw_only=True)
class ServedEngine:
    """An engine behind HTTP."""

    settings: ModelSettings
    directory: str
    clock: Clock
    env: Mapping[str, str]
    prepare: Prepare
    dialect: Dialect
    asks: Mapping[str, object]
    vitals: Sequence[str]
    silent_imports: bool
    """The engine's log does not show when its program started."""
    _reach: Reach | None = None
    """Of an engine elsewhere, since its first launch."""
    _wakes: dict[ReplicaId, _Wake] = field(default_factory=dict)
    _launched: dict[ReplicaId, _Wake] = field(default_factory=dict)
    """Of replicas launched and not followed yet: an engine may write before `follow` first runs."""

    @property
    def name(self) -> str:
        """Return the kind, as in `fleet.toml`."""
        return self.settings.engine.kind

    def launch(
        self, *, replica: ReplicaId, generation: int, anew: bool = False, place: Place | None = None
    ) -> Launch:
        """Return how to start the replica; blocks for a file's header and a directory listing.

        The log file and the port are the replica's, the same for every generation, but `anew`, for a cold
        start, a port that somebody else holds is exchanged, unless it is configured. An engine on a rented
        machine has no log. Raises OperatorFault if the model file is missing or no model, the engine is not
        installed, or its user does not exist.
        """
        host, port = self._address(replica, anew=anew)
        user, logs = self._user(), Path(self.directory, "logs")
        cache = Path(user.home, ".cache", "poorwill") if user else Path(self.directory, "cache", self.name)
        # In a home of somebody else's root makes nothing: what it follows there may be a link.
        for made in (logs,) if user else (cache, logs):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = user.variables() if user else {}
        context = LaunchContext(
            host=host,
            port=port,
            cache=str(cache),
            env=self.env,
            container=container_name(self.directory, replica),
            place=place,
            own=own,
        )
        recipe = self.prepare(self.settings, context)
        launch = self._launch(recipe, replica, context, str(logs / f"{file_name(replica)}.log"))
        rate = expected_rate(self.settings, directory=self.directory)
        wake = self._launched[replica] = self._wake(launch, self._ahead(recipe, anew=anew), rate)
        wake.note, wake.anew = recipe.note, anew
        if not recipe.linked:
            return launch
        return replace(launch, cwd=linked(cache / "models", recipe.engine_model, recipe.linked))

    def _address(self, replica: ReplicaId, *, anew: bool) -> tuple[str, int]:
        away, host = self.settings.away, "127.0.0.1"
        if away is not None and self.settings.away_at is not None:
            self._reach = self._reach or reach_of(away, self.env)
            return self.settings.away_at
        return host, self.settings.engine.port or replica_port(self.directory, replica, host, anew=anew)

    def _user(self) -> EngineUser | None:
        try:
            return engine_user(self.settings.engine.user)
        except ValueError as error:
            what = f"model {self.settings.name}: {error}"
            hint = f"useradd --system --create-home {self.settings.engine.user}"
            raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint=hint) from error

    def _launch(self, recipe: Recipe, replica: ReplicaId, where: LaunchContext, log_path: str) -> Launch:
        return Launch(
            replica=replica,
            model=self.settings.name,
            engine=self.name,
            argv=recipe.argv,
            env=recipe.env,
            host=where.host,
            port=where.port,
            ready_path=recipe.ready_path,
            log_path=log_path,
            weights_path=recipe.weights.path,
            digest=recipe.digest(),
            engine_model=recipe.engine_model,
            sleep=recipe.sleep,
            user=self.settings.engine.user,
            cwd=self.settings.engine.cwd or "/",
            place=where.place,
            stop=recipe.stop,
        )

    async def follow(self, launch: Launch, report: Report) -> None:
        """Report the phases the log tells of since the launch was made, until cancelled.

        Only phases that begin are reported; how long one took, if the log says it afterwards, is kept for
        `refine`. See `core.ports.engine.Engine`.
        """
        wake = self._launched.pop(launch.replica, None)
        if wake is None:
            wake = await asyncio.to_thread(self._wake, launch)
        self._wakes[launch.replica] = wake
        wake.report = report
        if wake.ahead is not None:
            wake.ahead.start(rest=wake.anew)
        loop = asyncio.get_running_loop()
        try:
            await in_thread(
                lambda stop: wake.watch(stop, lambda mark: loop.call_soon_threadsafe(wake.tell, mark))
            )
        finally:
            wake.report = None
            if wake.ahead is not None:
                wake.ahead.stop()

    async def ready(self, running: Running, launch: Launch) -> None:
        """Return when the readiness path answers and one synthetic request has been served.

        Polls every 10 to 250 ms, at most until the wake's hard cap; raises DriverError then, or if the
        synthetic request fails. A program of one's own that serves no path for it is ready without: it may be
        for speech or images. Cancelled: no connection stays open.
        """
        endpoint = self._endpoint(running, launch)
        wake = self._wakes.get(launch.replica)
        cap_us = self.settings.replica.wake.cap_us
        began_us = self.clock.now_us()
        give_up_us = began_us + cap_us
        while not await answers(endpoint, launch.ready_path, timeout_s=_POLL_TIMEOUT_S):
            if self.clock.now_us() > give_up_us:
                raise DriverError(f"{launch.ready_path} did not answer 200 in {cap_us / SECOND_US:g} s")
            waited_s = (self.clock.now_us() - began_us) / SECOND_US
            await asyncio.sleep(min(max(waited_s * _POLL_SHARE, _SHORTEST_POLL_S), _LONGEST_POLL_S))
        if wake is not None:
            wake.mark(Phase.WARMUP, self.clock.now_us(), "synthetic request")
        left_s = max(1.0, (give_up_us - self.clock.now_us()) / SECOND_US)
        try:
            await warm_up(endpoint, timeout_s=left_s)
        except NoQuestion:
            if self.settings.engine.kind != "command" or self._reach is not None:
                raise
        if wake is not None:
            wake.mark(Phase.READY, self.clock.now_us())

    async def probe(self, running: Running, launch: Launch) -> str:
        """Return the engine's greedy answer to a fixed prompt. Raises DriverError if there is none."""
        return await greedy_text(self._endpoint(running, launch))

    async def vital_signs(self, running: Running, launch: Launch) -> str | None:
        """Return what changes as the engine works; see `core.ports.engine.Engine`. Cancelled: no connection
        stays open.
        """
        paths = (launch.ready_path, *self.vitals)
        return await vital_signs(self._endpoint(running, launch), paths)

    def refine(
        self, launch: Launch, marks: Sequence[PhaseMark], began_us: int, ended_us: int
    ) -> Sequence[PhaseMark]:
        """Return the leaves of the wake as marks: the given marks, what the log told besides, and bytes read.

        The wake is then forgotten.
        """
        wake = self._wakes.pop(launch.replica, None)
        if wake is None:
            return marks
        known = set(marks)
        more = [mark for mark in (*wake.reader.marks, *wake.marks) if mark not in known]
        if self.silent_imports and wake.io.samples and any(m.phase is Phase.SPAWN for m in marks):
            # The process exists: up to its first line it does nothing but import.
            more.append(PhaseMark(phase=Phase.IMPORTS, at_us=wake.io.samples[0].at_us))
        leaves = anatomy(settle_compilation((*marks, *more)), began_us, ended_us)
        read = wake.io.with_bytes(leaves, expected_rate=wake.expected_rate)
        return as_marks(with_notes(read, wake.ahead, wake.note))

    def _ahead(self, recipe: Recipe, *, anew: bool) -> ReadAhead | None:
        """Return the reading ahead that helps this wake, not begun; None if none would.

        A start reads the weights, the model's other files and the engine's compiled code; a process that is
        restored only the weights that it maps from their files, or dropped when it went to sleep.
        """
        helps = recipe.loads_cached if anew else recipe.maps_weights or recipe.sleep in FORGETFUL_SLEEPS
        if not self.settings.engine.read_ahead or not recipe.argv or not helps:
            return None

        def files() -> Iterator[str]:
            yield from recipe.weights.files
            cached = Path(self.directory, "cache", self.name).rglob("*")
            yield from map(str, islice(cached if anew else (), _MOST_CACHED_FILES))

        return ReadAhead(files=files, room_bytes=free_for_cache)

    def _endpoint(self, running: Running, launch: Launch) -> Endpoint:
        model = launch.engine_model or launch.model
        return Endpoint(host=running.host, port=running.port, model=model, extra=self.asks, reach=self._reach)

    def _wake(self, launch: Launch, ahead: ReadAhead | None = None, rate: float | None = None) -> _Wake:
        timeline = Timeline(clock=self.clock, began_us=self.clock.now_us())
        file = LogFile.at_end(launch.log_path)
        reader = LogReader(file=file, dialect=self.dialect, timeline=timeline)
        return _Wake(reader=reader, io=IoTrack(argv=launch.argv), ahead=ahead, expected_rate=rate)
