"""When an engine that is there, and may call itself healthy, is suspected to answer nobody.

One request without an answer proves nothing: a long prompt takes its time. Several in a row, one of them sent
after another had already failed, with no byte from the engine to anybody in between, are a suspicion; a probe
decides.
"""

from dataclasses import dataclass, replace

SUSPICIOUS_TIMEOUTS = 3


@dataclass(frozen=True, slots=True)
class Silence:
    """Requests of one engine that timed out since it last sent a byte to anybody."""

    timeouts: int = 0
    first_at: float = 0.0
    """When the first of them failed."""
    sent_later: bool = False
    """Whether one of them was sent after that: they are not one batch of long prompts."""

    def timed_out(self, *, sent: float, now: float) -> "Silence":
        """Count a request that was sent at `sent` and has timed out at `now`."""
        if not self.timeouts:
            return Silence(1, now)
        later = self.sent_later or sent >= self.first_at
        return replace(self, timeouts=self.timeouts + 1, sent_later=later)

    @property
    def suspicious(self) -> bool:
        """Whether it is time to probe the engine."""
        return self.timeouts >= SUSPICIOUS_TIMEOUTS and self.sent_later


ANSWERING = Silence()
