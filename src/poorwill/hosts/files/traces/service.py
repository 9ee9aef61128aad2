"""How long each request is served: as the trace measured, else tokens over rates, else a constant."""

from dataclasses import dataclass

import numpy as np

from poorwill.core.words import SECOND_US
from poorwill.hosts.files.traces.trace import UNKNOWN, Micros, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRule:
    """What is assumed about service times that the trace has not measured."""

    constant_us: int = 30 * SECOND_US
    prompt_tokens_s: float | None = None
    output_tokens_s: float | None = None
    """Rates of one request; both must be given to be used."""

    def times(self, trace: Trace) -> Micros:
        """Return the service time of every request in microseconds.

        In this order: the trace's `service_s`; prompt tokens over the prompt rate plus output tokens over
        the output rate, rounded to the microsecond; the constant.
        """
        times = np.full(len(trace), self.constant_us, np.int64)
        if self.prompt_tokens_s and self.output_tokens_s:
            known = (trace.prompt_tokens != UNKNOWN) & (trace.output_tokens != UNKNOWN)
            seconds = trace.prompt_tokens / self.prompt_tokens_s + trace.output_tokens / self.output_tokens_s
            times = np.where(known, np.rint(seconds * SECOND_US).astype(np.int64), times)
        return np.where(trace.service_us != UNKNOWN, trace.service_us, times)
