"""When an engine that is there, and may call itself healthy, is suspected to answer nobody.

One request without an answer proves nothing: a long prompt takes its time. So silence only raises a
suspicion, and an examination decides (`compose.served.suspects`). There are two: a request has waited for a
while and nobody got a byte meanwhile; or several in a row timed out, one sent after another had failed.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

SUSPICIOUS_TIMEOUTS = 3
QUIET_S = 30.0
"""How long an engine that owes an answer may be silent towards everybody before it is looked at."""


class Suspicion(StrEnum):
    """Why an engine is examined, for people."""

    QUIET = f"nobody got a byte of an answer for {QUIET_S:g} s"
    TIMEOUTS = "several requests in a row got no byte of an answer"


@dataclass(frozen=True, slots=True)
class Silence:
    """What is known of an engine since it last sent a byte to anybody. Instants are the loop's seconds."""

    timeouts: int = 0
    first_at: float = 0.0
    """When the first of them failed."""
    sent_later: bool = False
    """Whether one of them was sent after that: they are not one batch of long prompts."""
    told_at: float = 0.0
    """When a quiet stretch was last told."""

    def timed_out(self, *, sent: float, now: float) -> "Silence":
        """Count a request that was sent at `sent` and has timed out at `now`."""
        if not self.timeouts:
            return replace(self, timeouts=1, first_at=now)
        later = self.sent_later or sent >= self.first_at
        return replace(self, timeouts=self.timeouts + 1, sent_later=later)

    def looked_at(self, *, owing_since: float, now: float) -> "Silence":
        """Note at `now` that the engine has owed an answer, and has sent nothing, for so long."""
        quiet = now - max(owing_since, self.told_at) >= QUIET_S
        return replace(self, told_at=now) if quiet else self

    def suspicion(self, before: "Silence") -> Suspicion | None:
        """Return the suspicion that this state raises and the one `before` it did not."""
        if self.timeouts > max(before.timeouts, SUSPICIOUS_TIMEOUTS - 1) and self.sent_later:
            return Suspicion.TIMEOUTS
        return Suspicion.QUIET if self.told_at > before.told_at else None


ANSWERING = Silence()
