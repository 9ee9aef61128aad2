"""How long an engine takes for what is not reading weights: imports, compilation, cache, graphs. Pure data.

Seconds on a current server CPU, as straight lines in what they grow with. Sources: the phase logs of vLLM
0.10 on H100 and L40S that accompany Kabakibo et al., "Breaking the Ice: Analyzing Cold Start Latency in
vLLM" (MLSys 2026), where compilation grows with layers and the rest hardly at all; what layers, experts and
accelerators add to graphs, warm-up and context: the logs in tests/anatomy/data/looked_up.csv; kernels of
eight-bit experts: vllm-project/vllm#47456 alone. Newer versions find their compiled code two to three times
as fast as older ones; no version is asked for, the interval covers both. llama.cpp
and transformers were measured for this project. SGLang's and Ollama's are assumptions; `evidence` says for
each engine how far its figures have been checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from poorwill.core.words import Phase

USUAL_HOST = 1.15
"""An unknown host takes this much longer than the one the constants come from: 31 publishers imply 1.24
in the median, the Run:ai table 1.0; this is between them."""


class CompileCache(StrEnum):
    """What a start finds of an earlier compilation."""

    HIT = "hit"
    MISS = "miss"
    NONE = "none"  # the engine does not compile, or was told not to


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearTime:
    """Seconds as a sum: a constant, and so much for each layer, billion parameters and gigabyte."""

    base: float = 0.0
    layer: float = 0.0
    expert_layer: float = 0.0
    """More for each layer of a model with experts."""
    compiled_layer: float = 0.0
    """More for each layer if the engine runs compiled code."""
    billion: float = 0.0
    gigabyte: float = 0.0
    rank: float = 0.0
    """More for each accelerator after the first."""

    def seconds(self, share: "ModelShare") -> float:
        """Return the seconds for what one accelerator holds of a model."""
        layer = self.layer + self.expert_layer * share.experts + self.compiled_layer * share.compiled
        return (
            self.base
            + layer * share.layers
            + self.billion * share.billions
            + self.gigabyte * share.gigabytes
            + self.rank * (share.ranks - 1)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShare:
    """What one accelerator holds of a model."""

    layers: float
    billions: float
    gigabytes: float
    ranks: int = 1
    """How many there are."""
    experts: bool = False
    """It is a mixture of experts."""
    compiled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTimes:
    """One engine: its phases besides reading weights, and its usual loader."""

    loader: str
    evidence: str
    """How far these figures have been checked, for people."""
    phases: Mapping[Phase, LinearTime]
    compiles: bool = False
    accelerated: bool = False
    """It serves from an accelerator, whose memory its snapshot holds as well."""
    expert_kernels: LinearTime | None = None
    """More warm-up if the kernels of eight-bit experts are compiled at first use and nothing is cached."""


_TORCH_SERVER: Mapping[Phase, LinearTime] = MappingProxyType(
    {
        Phase.SPAWN: LinearTime(base=0.1),
        Phase.IMPORTS: LinearTime(base=8.4),
        Phase.CONTEXT: LinearTime(base=2.0, rank=1.0),
        Phase.READY: LinearTime(base=0.5),
    }
)

ENGINE_TIMES: Mapping[str, EngineTimes] = MappingProxyType(
    {
        "vllm": EngineTimes(
            loader="safetensors",
            evidence="half of 99 published starts and parts of starts within 28 %, nine of ten within 96 %",
            compiles=True,
            accelerated=True,
            phases={
                **_TORCH_SERVER,
                Phase.COMPILE_HIT: LinearTime(base=1.0, layer=0.19),
                Phase.COMPILE_MISS: LinearTime(base=5.0, layer=0.55),
                Phase.KV_CACHE: LinearTime(base=0.3),
                Phase.GRAPHS: LinearTime(base=0.5, layer=0.15, expert_layer=0.2),
                Phase.WARMUP: LinearTime(base=1.1, compiled_layer=0.05, billion=0.06),
            },
            expert_kernels=LinearTime(layer=1.2),
        ),
        "sglang": EngineTimes(
            loader="safetensors",
            evidence="assumptions from its documented log; three published starts were within 23 %",
            accelerated=True,
            phases={
                **_TORCH_SERVER,
                Phase.KV_CACHE: LinearTime(base=0.5),
                Phase.GRAPHS: LinearTime(base=3.0, layer=0.12, billion=0.06),
                Phase.WARMUP: LinearTime(base=2.0, billion=0.06),
            },
        ),
        "transformers": EngineTimes(
            loader="safetensors",
            evidence="measured on two CPU cores, never on an accelerator",
            phases={
                Phase.SPAWN: LinearTime(base=0.1),
                Phase.IMPORTS: LinearTime(base=6.5),
                Phase.WARMUP: LinearTime(base=0.4, gigabyte=0.3),
                Phase.READY: LinearTime(base=0.1),
            },
        ),
        "llama.cpp": EngineTimes(
            loader="gguf",
            evidence="measured on two CPU cores, never on an accelerator",
            phases={
                Phase.SPAWN: LinearTime(base=0.03),
                Phase.IMPORTS: LinearTime(base=0.05),
                Phase.KV_CACHE: LinearTime(base=0.05, billion=0.3),
                Phase.GRAPHS: LinearTime(base=0.01, gigabyte=0.01),
                Phase.WARMUP: LinearTime(base=0.01, gigabyte=0.2),
                Phase.READY: LinearTime(base=0.02),
            },
        ),
        "ollama": EngineTimes(
            loader="ollama",
            evidence="assumptions, set by the logs of three loads; not checked against any other",
            phases={
                Phase.SPAWN: LinearTime(base=0.3),
                Phase.KV_CACHE: LinearTime(base=0.1),
                Phase.WARMUP: LinearTime(base=0.2),
                Phase.READY: LinearTime(base=0.05),
            },
        ),
    }
)

ANY_ENGINE = EngineTimes(
    loader="safetensors",
    evidence="nothing is known of this engine",
    phases={
        Phase.SPAWN: LinearTime(base=0.1),
        Phase.IMPORTS: LinearTime(base=5.0),
        Phase.WARMUP: LinearTime(base=1.0, billion=0.1),
        Phase.READY: LinearTime(base=0.1),
    },
)
"""For an engine that was not measured; its interval is wide."""
