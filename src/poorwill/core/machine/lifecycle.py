"""The life of a replica as a table: which inputs exist, and where each may lead from each state.

Everything about which state follows which lives in this file; `step` decides among the states a row
allows and refuses to leave the table. `docs/READING.md` draws its diagram from here, so the picture
cannot lie. A row that lists only its own state is an input that does not change the state.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a replica is in its life."""

    PARKED = "parked"  # in some tier; nothing serves
    WAKING = "waking"  # a wake (or a cold start) is under way
    READY = "ready"  # leases are granted
    DRAINING = "draining"  # no new leases; waiting for those in flight
    PARKING = "parking"  # going to a tier, from ready or from a shallower tier


class Kind(StrEnum):
    """The kinds of input; one class of `inputs` each."""

    DEMAND = "demand"
    WITHDRAWN = "withdrawn"
    RETURNED = "returned"
    TICK = "tick"
    PHASE_BEGAN = "phase_began"
    WAKE_SUCCEEDED = "wake_succeeded"
    WAKE_FAILED = "wake_failed"
    PARK_SUCCEEDED = "park_succeeded"
    PARK_FAILED = "park_failed"
    ENGINE_LOST = "engine_lost"
    IMAGE_LOST = "image_lost"
    WAKE_ASKED = "wake_asked"
    PARK_ASKED = "park_asked"
    SPEND_CHANGED = "spend_changed"
    CLOSE = "close"


_P, _W, _R, _D, _G = State.PARKED, State.WAKING, State.READY, State.DRAINING, State.PARKING

TRANSITIONS: Mapping[tuple[State, Kind], frozenset[State]] = MappingProxyType(
    {
        (state, kind): frozenset(row)
        for kind, rows in {
            #                    parked        waking        ready            draining   parking
            Kind.DEMAND:         ((_P, _W),     (_W,),        (_R,),           (_D, _R),  (_G,)),
            Kind.WITHDRAWN:      ((_P,),        (_W,),        (_R,),           (_D,),     (_G,)),
            Kind.RETURNED:       ((_P,),        (_W,),        (_R, _G),        (_D, _G),  (_G,)),
            Kind.TICK:           ((_P, _W, _G), (_W,),        (_R, _G),        (_D, _G),  (_G,)),
            Kind.PHASE_BEGAN:    ((_P,),        (_W,),        (_R,),           (_D,),     (_G,)),
            Kind.WAKE_SUCCEEDED: ((_P,),        (_R, _G),     (_R,),           (_D,),     (_G,)),
            Kind.WAKE_FAILED:    ((_P,),        (_W, _P),     (_R,),           (_D,),     (_G,)),
            Kind.PARK_SUCCEEDED: ((_P,),        (_W,),        (_R,),           (_D,),     (_P, _W, _G)),
            Kind.PARK_FAILED:    ((_P,),        (_W,),        (_R,),           (_D,),     (_G, _P, _R, _W)),
            Kind.ENGINE_LOST:    ((_P,),        (_W,),        (_P, _W),        (_P,),     (_G,)),
            Kind.IMAGE_LOST:     ((_P,),        (_W,),        (_R,),           (_D,),     (_G,)),
            Kind.WAKE_ASKED:     ((_W, _P),     (_W,),        (_R,),           (_D, _R),  (_G,)),
            Kind.PARK_ASKED:     ((_P, _G),     (_W,),        (_R, _D, _G),    (_D,),     (_G,)),
            Kind.SPEND_CHANGED:  ((_P,),        (_W,),        (_R, _G),        (_D,),     (_G,)),
            Kind.CLOSE:          ((_P, _G),     (_W,),        (_R, _D, _G),    (_D,),     (_G,)),
        }.items()
        for state, row in zip((_P, _W, _R, _D, _G), rows, strict=True)
    }
)  # fmt: skip
"""(state, kind of input) to the states it may lead to. Total: every pair is decided on purpose."""
