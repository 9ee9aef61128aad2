"""A request trace as arrays: when requests came, what they asked for, how long they were served.

It owns the arrays and their selection; it reads no files (`readers`) and invents nothing (`synthetic`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poorwill.core.errors import unknown_model

Micros = NDArray[np.int64]
"""Instants or durations in microseconds."""

UNKNOWN = -1
"""In a column of tokens or service times: the trace does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests in the order of their arrival."""

    arrival_us: Micros
    """Since the trace's origin."""
    service_us: Micros
    """Measured service times; UNKNOWN if the trace has none."""
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    model: NDArray[np.int32]
    """Index into `models`."""
    models: tuple[str, ...]
    origin_us: int | None = None
    """The origin since the Unix epoch, if the trace is dated."""
    source: str = ""

    def __len__(self) -> int:
        return len(self.arrival_us)

    def only(self, model: str) -> "Trace":
        """Return the requests of one model. Raises RequestFault if there are none."""
        if model not in self.models:
            raise unknown_model(model, self.models, where=self.source or "the trace")
        return self.where(self.model == self.models.index(model))

    def before(self, span_us: int) -> "Trace":
        """Return the requests that arrive within the span, its end excluded."""
        return self.where(self.arrival_us < span_us)

    def merged(self) -> "Trace":
        """Return the same requests as if they all were for one model."""
        return _with(self, model=np.zeros(len(self), np.int32), models=("all",))

    def where(self, chosen: NDArray[np.bool_]) -> "Trace":
        """Return the chosen requests; the list of models stays as it is."""
        return _with(
            self,
            arrival_us=self.arrival_us[chosen],
            service_us=self.service_us[chosen],
            prompt_tokens=self.prompt_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            model=self.model[chosen],
        )

    def by_model(self) -> "list[tuple[str, Trace]]":
        """Return one trace per model that has requests, in the order of `models`."""
        present = np.unique(self.model)
        if len(present) == 1:
            return [(self.models[int(present[0])], self)]
        return [(self.models[int(code)], self.where(self.model == code)) for code in present]


def new_trace(
    *,
    arrival_us: Sequence[int] | Micros,
    service_us: Sequence[int] | Micros | None = None,
    prompt_tokens: Sequence[int] | NDArray[np.int64] | None = None,
    output_tokens: Sequence[int] | NDArray[np.int64] | None = None,
    models: Sequence[str] | None = None,
    origin_us: int | None = None,
    source: str = "",
) -> Trace:
    """Return a trace of these columns, sorted by arrival; equal arrivals keep their order."""
    arrivals = np.asarray(arrival_us, dtype=np.int64)
    order = np.argsort(arrivals, kind="stable")
    names = tuple(dict.fromkeys(models)) if models is not None else ("",)
    code = {name: index for index, name in enumerate(names)}
    codes = np.zeros(len(arrivals), np.int32)
    if models is not None:
        codes = np.fromiter((code[name] for name in models), np.int32, len(arrivals))

    def column(values: Sequence[int] | NDArray[np.int64] | None) -> NDArray[np.int64]:
        if values is None:
            return np.full(len(arrivals), UNKNOWN, np.int64)
        return np.asarray(values, dtype=np.int64)[order]

    return Trace(
        arrival_us=arrivals[order],
        service_us=column(service_us),
        prompt_tokens=column(prompt_tokens),
        output_tokens=column(output_tokens),
        model=codes[order],
        models=names,
        origin_us=origin_us,
        source=source,
    )


def _with(trace: Trace, **changes: object) -> Trace:
    from dataclasses import replace

    return replace(trace, **changes)  # type: ignore[arg-type]
