"""The options that describe a model and a machine to predict from, for every verb that predicts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from poorwill.cli.parsing.fleet import DEFAULT_FILE, fleet_path
from poorwill.cli.parsing.options import Option, declared
from poorwill.cli.parsing.settings import read_fleet
from poorwill.compose.host import KnownHost, measured_host
from poorwill.config.values.written import more_than_zero, positive, time_us
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError
from poorwill.policies.coldstart.engine_times import ENGINE_TIMES, USUAL_HOST, CompileCache
from poorwill.policies.coldstart.loaders import (
    GB,
    LOADERS,
    PCIE_OF,
    PCIE_RATE,
    SEEN_BITS,
    SEEN_GPUS,
    USUAL_BANDWIDTH,
    Storage,
)
from poorwill.policies.coldstart.prediction import Machine, Start

_USUAL = ", ".join(f"{kind} {rate / GB:g}" for kind, rate in USUAL_BANDWIDTH.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOptions:
    """A model, how it is started, and the machine that starts it."""

    params: Annotated[float | None, Option("parameters: 70B, 70e9", metavar="N", read=more_than_zero)] = None
    active_params: Annotated[
        float | None,
        Option(
            "those that take part in a token, of a mixture of experts: 22B (default: all)",
            metavar="N",
            read=more_than_zero,
        ),
    ] = None
    bits: Annotated[float, Option("bits a parameter (default: 16)", metavar="N", read=more_than_zero)] = 16.0
    weights_gb: Annotated[
        float | None, Option("size (default: params x bits)", metavar="GB", read=more_than_zero)
    ] = None
    layers: Annotated[
        int | None, Option("default: guessed from the active parameters", metavar="N", read=positive)
    ] = None
    engine: Annotated[str, Option("default: vllm", choices=tuple(ENGINE_TIMES))] = "vllm"
    loader: Annotated[
        str | None,
        Option(
            "default: the engine's own. runai reads the whole model for each accelerator, "
            "runai-distributed shares it out and exchanges it, runai-sharded reads each one's own files",
            choices=tuple(LOADERS),
        ),
    ] = None
    streams: Annotated[
        int | None, Option("concurrent reads of the loader, if set", metavar="N", read=positive)
    ] = None
    tp: Annotated[int, Option("accelerators each layer is cut over", metavar="N", read=positive)] = 1
    pp: Annotated[int, Option("pipeline stages, each on --tp accelerators", metavar="N", read=positive)] = 1
    ep: Annotated[bool, Option("each accelerator holds whole experts (vLLM's --enable-expert-parallel)")] = (
        False
    )
    compile_cache: Annotated[
        CompileCache,
        Option("what the start finds of an earlier compilation; none: it does not compile (default: hit)"),
    ] = CompileCache.HIT
    eager: Annotated[bool, Option("neither compilation nor graph capture (vLLM's --enforce-eager)")] = False
    storage: Annotated[
        Storage,
        Option(
            "where the weights are: cache (page cache or tmpfs: a warm start), nvme (a local drive), block "
            "(a cloud's network drive), network (a shared file system), object (S3 and its like) "
            "(default: nvme)"
        ),
    ] = Storage.NVME
    disk_gb_s: Annotated[
        float | None,
        Option(
            "its bandwidth as this host measures it: of a network drive the lower of the drive's and the "
            f"host's link's (default: as measured for the fleet, else {_USUAL})",
            metavar="GB/S",
            read=more_than_zero,
        ),
    ] = None
    link_gbit: Annotated[
        float | None, Option("download first, over this", metavar="GBIT/S", read=more_than_zero)
    ] = None
    gpu: Annotated[
        str | None, Option("for its PCIe", choices=tuple(PCIE_OF), metavar="NAME", read=str.lower)
    ] = None
    pcie: Annotated[
        str | None, Option("generation (default: the --gpu's, else 4)", choices=tuple(PCIE_RATE))
    ] = None
    host_factor: Annotated[
        float | None,
        Option(
            "how slow the host's CPU is: 1 is a current server's (default: from the fleet's own starts, else "
            f"{USUAL_HOST})",
            metavar="X",
            read=more_than_zero,
        ),
    ] = None
    provision_s: Annotated[int, Option("until the machine is there", metavar="S", read=time_us)] = 0
    """In microseconds, as all durations are once they are read."""

    @property
    def given(self) -> list[str]:
        """Return the options that say something else than their defaults."""
        plain = PredictionOptions()
        return [
            one.flag
            for one in declared(PredictionOptions)
            if getattr(self, one.name) != getattr(plain, one.name)
        ]

    def start(self) -> Start:
        """Return the start the options describe. Raises OperatorFault if a figure is impossible."""
        if self.params is None:
            raise _fault("the number of parameters is missing", "--params 70B")
        if self.active_params is not None and self.active_params > self.params:
            raise _fault("--active-params must not be more than --params", "leave it out")
        return Start(
            parameters=self.params,
            active=self.active_params,
            bits=self.bits,
            bytes=None if self.weights_gb is None else round(self.weights_gb * GB),
            layers=self.layers,
            engine=self.engine,
            loader=self.loader or "",
            streams=self.streams,
            ranks=self.tp * self.pp,
            stages=self.pp,
            experts_apart=self.ep,
            compile_cache=self.compile_cache,
            eager=self.eager,
        )

    def machine(self, known: KnownHost) -> Machine:
        """Return the machine the options describe; for what they leave out, what a fleet has measured."""
        self._refuse_unseen(known)
        measured = known.speed.bytes_s if known.speed else None
        return Machine(
            storage=self.storage,
            bandwidth=measured if self.disk_gb_s is None else self.disk_gb_s * GB,
            link=None if self.link_gbit is None else self.link_gbit * 1e9 / 8,
            bus=PCIE_RATE[self.pcie or PCIE_OF.get(self.gpu or "", "4")],
            host=known.factor(self.engine) if self.host_factor is None else self.host_factor,
            phases=known.pace(self.engine).phases if self.host_factor is None else {},
            provision_us=self.provision_s,
        )

    def _refuse_unseen(self, known: KnownHost) -> None:
        """Raise OperatorFault for a kind that no figure is known of, unless the fleet has measured it."""
        if not ENGINE_TIMES[self.engine].accelerated or known.phases.get(self.engine):
            return
        if self.gpu is not None and self.gpu not in SEEN_GPUS:
            hint = f"--pcie {PCIE_OF[self.gpu]} predicts as for those that were, or measure one start"
            raise _fault(f"not known: no start on {self.gpu} was ever seen", hint)
        if not SEEN_BITS[0] <= self.bits <= SEEN_BITS[1]:
            what = f"not known: no start with {self.bits:g} bits a parameter was ever seen"
            raise _fault(what, "measure one start; then it is predicted from that")


def fleet_host(fleet: str, env: Mapping[str, str]) -> KnownHost:
    """Return what a fleet has measured; nothing if there is none.

    A prediction needs none, so a fleet that cannot be read is no error, unless it was named.
    """
    named = fleet != DEFAULT_FILE
    if not named and not os.path.exists(fleet_path(fleet)):
        return KnownHost()
    try:
        return measured_host(read_fleet(fleet, env), env=env)
    except PoorwillError:
        if named:
            raise
        return KnownHost()


def _fault(message: str, hint: str) -> OperatorFault:
    return OperatorFault(ErrorCode.CONFIG_INVALID, message, hint=hint)
