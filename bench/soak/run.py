"""Real engines, CRIU, sockets and a real `poorwill serve`, for as long as asked, with faults at random.

    python bench/soak/run.py --minutes 5 [--seed N] [--faults all|none|NAME...]

Small random models are frozen and woken all the time by clients with habits. Faults are drawn from the
seed and aimed at a moment (a dump, a restore, the filling of memory); what else happens is real time's. Now
and then the clients pause, everything must come to rest, and is counted. Exit status 1: a law was broken.
Ctrl-C ends it early; either way nothing is left. Docs: reliability.md.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import looks
from clients import Crowd
from faults import MOMENTS, Weather, draw
from fleet import Program, write_fleet

from poorwill.engines.weights.gguf_model import make_model
from poorwill.hosts.processes.prctl import subreaper

DISK_MB = 200
"""For each model: its image, and the next one beside it."""
REST_S = 90.0


@dataclass
class Soak:
    """One run."""

    options: argparse.Namespace
    program: Program
    disk: bool
    broken: list[str] = field(default_factory=list)
    made: collections.Counter[str] = field(default_factory=collections.Counter)
    missed: int = 0
    rests: list[looks.Rest] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def breaks(self, what: str) -> None:
        self.broken.append(what)
        self.note("BROKEN", what=what)

    def note(self, kind: str, **fields: object) -> None:
        line = json.dumps({"at": time.strftime("%H:%M:%S"), "kind": kind, **fields})
        print(line, flush=True)

    def reaping(self) -> None:
        """Do the work of the first process of a machine: reap whoever lost their parent."""
        while not self.ended.wait(0.02):
            looks.reap(self.program.child.pid if self.program.child else 0)

    def restart(self) -> None:
        """Check the ledger that a killed poorwill has left, and serve again."""
        for found in filter(None, (self.program.check(), self.program.start())):
            self.breaks(found)
        if self.program.child is not None and self.program.child.poll() is not None:
            self.over.set()

    def live(self) -> None:
        crowd = Crowd(self.program, self.options.seed, self.breaks)
        weather = Weather(self.program, self.disk, self.restart)
        kinds = list(weather.kinds())
        names = {"all": kinds, "none": []}.get(" ".join(self.options.faults), self.options.faults)
        if unknown := set(names) - set(kinds):
            raise SystemExit(f"no such fault here: {unknown}; there are {kinds}")
        if why := self.program.start():
            raise SystemExit(why)
        if not all("frozen" in one["ladder"] for one in self.program.replicas()):
            raise SystemExit("frozen does not work here: poorwill doctor says why")
        crowd.learn()
        self.rest(crowd)
        crowd.begin(self.options.clients)
        try:
            self._weather(crowd, weather, names)
        finally:
            self.over.set()
            crowd.end()
        self.rest(crowd)
        if (status := self.program.stop()) != 0:
            self.breaks(f"serve ended with {status}")
        self._after(crowd)

    def _weather(self, crowd: Crowd, weather: Weather, names: list[str]) -> None:
        chance = random.Random(self.options.seed)
        until = time.monotonic() + 60 * self.options.minutes  # noqa: TID251
        next_rest = time.monotonic() + self.options.rest_s  # noqa: TID251
        while (now := time.monotonic()) < until and not self.over.is_set():  # noqa: TID251
            if now >= next_rest:
                self.rest(crowd)
                next_rest = time.monotonic() + self.options.rest_s  # noqa: TID251
            if self.options.stop_at_first and self.broken:
                return
            if names:
                fault = draw(chance, names)
                self.over.wait(2 * self.options.every_s * chance.random())
                came = weather.make(fault, lambda: time.monotonic() > until or self.over.is_set())  # noqa: TID251
                self.made[f"{fault.name}, {fault.moment}" + ("" if came else " (not seen)")] += 1
                if self.options.verbose:
                    self.note("fault", **asdict(fault), came=came)
            else:
                self.over.wait(0.5)
            assert self.program.child is not None
            if (status := self.program.child.poll()) is not None:
                self.breaks(f"serve ended by itself with {status}")
                self.program.going_down()
                self.restart()

    def rest(self, crowd: Crowd) -> None:
        """Wait until nobody asks and all is parked, by an operator if need be; count what is there."""
        crowd.pause.set()
        until = time.monotonic() + REST_S  # noqa: TID251
        why = "clients have no answer"
        while time.monotonic() < until:  # noqa: TID251
            with contextlib.suppress(OSError, ValueError):
                if crowd.busy == 0:
                    replicas = self.program.replicas()
                    states = [(one["state"], one["tier"]) for one in replicas]
                    for one in replicas:
                        if one["state"] == "ready":  # after its second failed park it may stay so for minutes
                            crowd.park(one["model"])
                    pids = looks.engines(self.program.directory)
                    why = f"no rest: {states}, engines {pids}"
                    if {state for state, _ in states} == {"parked"} and not pids:
                        break
            time.sleep(0.05)  # noqa: TID251
        else:
            self.breaks(why)
        rest = looks.look(
            self.program.pid,
            self.program.starts,
            self.program.directory,
            self.program.scratch,
            sum(looks.wakes(self.program.directory).values()),
        )
        self.rests.append(rest)
        self.note("rest", **{name: value for name, value in asdict(rest).items() if name != "directories"})
        self._judge(rest)
        crowd.pause.clear()

    def _judge(self, rest: looks.Rest) -> None:
        """Compare with the first rest of this life of poorwill, and of the run."""
        own = next(one for one in self.rests if one.start == rest.start)
        if rest.descriptors > own.descriptors + 4:
            self.breaks(f"descriptors: {own.descriptors}, then {rest.descriptors}")
        if rest.threads > own.threads + 12:  # a pool of threads fills with use
            self.breaks(f"threads: {own.threads}, then {rest.threads}")
        if rest.children:
            self.breaks(f"{rest.children} children of poorwill at rest")
        if rest.temporary > self.rests[0].temporary + 2:
            self.breaks(f"{rest.temporary} temporary files")
        images = [
            name for name in rest.directories if name.startswith("snapshots/frozen/") and "image" in name
        ]
        if len(images) > len(self.program.models):
            self.breaks(f"more images than replicas: {images}")
        if any("/." in name for name in rest.directories):
            self.breaks(f"unfinished work at rest: {rest.directories}")
        if set(rest.directories) - set(self.rests[0].directories) - {"quarantine"}:
            self.note("new", directories=sorted(set(rest.directories) - set(self.rests[0].directories)))

    def _after(self, crowd: Crowd) -> None:
        if pids := looks.engines(self.program.directory):
            self.breaks(f"engines left after the end: {pids}")
        if why := self.program.check():
            self.breaks(why)
        self._judge_memory()
        said = (self.program.scratch / "serve.log").read_text(errors="replace")
        for line in said.splitlines():
            if "Traceback" in line or "unexpected error" in line:
                self.breaks(f"serve's log: {line[:400]}")
        wakes = looks.wakes(self.program.directory)
        self.note("wakes", **wakes)
        self.note("answers", **crowd.ends, slowest_s=round(crowd.slowest_s, 2))
        self.note("faults", **self.made)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.note("cpu of all that ran", s=round(used.ru_utime + used.ru_stime, 1))
        self.note("end", seed=self.options.seed, starts=self.program.starts, broken=len(self.broken))
        if self.options.record is not None:
            self._record({"wakes": wakes, "answers": crowd.ends, "faults": self.made.total()})

    def _record(self, result: dict[str, object]) -> None:
        """Add this run to those before it, and say what they come to."""
        now = time.strftime("%Y-%m-%d %H:%M")
        run = {"at": now, "seed": self.options.seed, "broken": self.broken, **result}
        with self.options.record.open("a") as file:
            file.write(json.dumps(run) + "\n")
        runs = [json.loads(line) for line in self.options.record.read_text().splitlines()]
        frozen = sum(run["wakes"].get("frozen", 0) for run in runs)
        self.note("so far", since=runs[0]["at"], runs=len(runs), frozen=frozen)

    def _judge_memory(self) -> None:
        """Memory at rest: flat in each life of poorwill of some length, after its first fifth."""
        for start in {one.start for one in self.rests}:
            life = [one for one in self.rests if one.start == start]
            life = life[len(life) // 5 :]
            if len(life) > 4:
                half = len(life) // 2
                before = max(one.memory_kb for one in life[:half])
                after = max(one.memory_kb for one in life[half:])
                self.note(
                    "memory", start=start, wakes=life[-1].wakes - life[0].wakes, before=before, after=after
                )
                if after > before + 8_000:
                    self.breaks(f"memory at rest grew from {before} to {after} kB")


@contextmanager
def disk(directory: Path, size_mb: int) -> Iterator[bool]:
    """Give the fleet a small disk of its own, if that may be had."""
    directory.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "tmpfs", str(directory)],
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], check=False)


@contextmanager
def fleet(options: argparse.Namespace) -> Iterator[Soak]:
    """Make models and a fleet; whatever happens, end what runs and remove everything, unless told to keep."""
    root = Path(tempfile.mkdtemp(prefix="soak-", dir=options.directory))
    try:
        with disk(root / "fleet", DISK_MB * options.models) as full:
            paths = {
                f"m{number}": make_model(root / f"m{number}.gguf", size=options.size, seed=number)
                for number in range(options.models)
            }
            write_fleet(root / "fleet", paths, idle_s=options.idle_s)
            soak = Soak(options, Program(root / "fleet", root, tuple(paths)), full)
            reaper = threading.Thread(target=soak.reaping)
            reaper.start()
            try:
                yield soak
            finally:
                _end(soak.program)
                soak.ended.set()
                reaper.join()
                if soak.broken and options.keep:
                    shutil.copytree(
                        root / "fleet", root / "kept", ignore=shutil.ignore_patterns("*.img", "*.socket")
                    )
    finally:
        if not (options.keep and os.path.isdir(root / "kept")):
            shutil.rmtree(root, ignore_errors=True)
        else:
            print(f"kept: {root}")


def _end(program: Program) -> None:
    if program.child is not None and program.child.poll() is None:
        program.stop()
    for _ in range(50):
        if not (left := looks.engines(program.directory)):
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)  # noqa: TID251


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5, metavar="M", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="default: another each time")
    parser.add_argument("--models", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=6, metavar="N", help="default: %(default)s")
    parser.add_argument("--faults", nargs="+", default=["all"], metavar="NAME", help="all, none or names")
    parser.add_argument("--every-s", type=float, default=2, metavar="S", help="between faults, on average")
    parser.add_argument("--rest-s", type=float, default=30, metavar="S", help="between counts at rest")
    parser.add_argument("--idle-s", type=float, default=0.05, metavar="S", help="before a park")
    parser.add_argument("--size", default="5m", help="of the models: 5m or 100m")
    parser.add_argument("--directory", metavar="DIR", help="where to work (default: the temporary directory)")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="add this run to those in there, and sum up"
    )
    parser.add_argument("--stop-at-first", action="store_true", help="end when a law is broken")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run that broke a law")
    parser.add_argument("--verbose", action="store_true", help="print every fault")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**32)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    print(f"seed {options.seed}, moments {', '.join(MOMENTS)}", flush=True)
    with subreaper(), fleet(options) as soak:
        try:
            soak.live()
        except KeyboardInterrupt:
            print("interrupted")
            return 130
        return 1 if soak.broken else 0


if __name__ == "__main__":
    sys.exit(main())
