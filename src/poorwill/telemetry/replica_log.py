"""Logs wakes, parks and notes for the operator: one line for each.

It listens to the journal, so that the log says what the ledger and `/events` say. Requests are not logged:
they are rows of the ledger.
"""

from dataclasses import dataclass, field

from poorwill.core.entries import Entry, Noted, ParkEnded, WakeBegan, WakeEnded
from poorwill.core.ports.log import Log
from poorwill.core.words import SECOND_US

NOTHING_WRONG = frozenset(
    {"adopted", "park_cancelled", "park_refused", "reloaded", "spend_lifted", "spend_within"}
)
"""Kinds of notes that report no trouble."""


@dataclass(slots=True, kw_only=True)
class ReplicaLog:
    """Writes the ends of wakes and parks, and notes, to the log."""

    log: Log
    _begun: dict[str, WakeBegan] = field(default_factory=dict)

    def write(self, entry: Entry) -> None:
        """Log an entry if it is a wake, a park or a note. A listener of the journal: quick, never raises."""
        match entry:
            case WakeBegan():
                self._begun[entry.replica] = entry
            case WakeEnded():
                self._woken(entry)
            case ParkEnded():
                self._parked(entry)
            case Noted():
                self._noted(entry)

    def _woken(self, ended: WakeEnded) -> None:
        began = self._begun.pop(ended.replica, None)
        if began is None or began.wake != ended.wake:
            return
        about = {
            "model": began.model,
            "wake": ended.wake,
            "tier": str(began.from_tier),
            "seconds": round((ended.at_us - began.at_us) / SECOND_US, 3),
            "asked_by": began.asked_by,
        }
        if ended.ok:
            self.log.info("woken", **about)
        else:
            self.log.warning("a wake failed", **about, why=ended.why)

    def _parked(self, ended: ParkEnded) -> None:
        seconds = round((ended.at_us - ended.began_us) / SECOND_US, 3)
        about = {"replica": ended.replica, "tier": str(ended.to_tier), "seconds": seconds}
        if ended.ok:
            self.log.info("parked", **about, image_bytes=ended.image_bytes)
        else:
            self.log.warning("a park failed", **about, why=ended.why)

    def _noted(self, note: Noted) -> None:
        write = self.log.info if note.kind in NOTHING_WRONG else self.log.warning
        about = {"model": note.model, "replica": note.replica}
        write(note.kind.replace("_", " "), **{what: who for what, who in about.items() if who}, why=note.text)
