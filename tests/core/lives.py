"""Lives of a replica, step by step; `lives.txt` has them written out."""

from collections.abc import Callable
from functools import partial

from poorwill.core.entries import PhaseSpan
from poorwill.core.errors import ErrorCode
from poorwill.core.launch import PhaseMark
from poorwill.core.machine.inputs import (
    Close,
    EngineLost,
    ImageLost,
    Input,
    ParkAsked,
    ParkFailed,
    ParkSucceeded,
    PhaseBegan,
    Returned,
    SpendChanged,
    Tick,
    WakeAsked,
    WakeFailed,
    WakeSucceeded,
    Withdrawn,
)
from poorwill.core.machine.replica import Blocked, Load, Replica
from poorwill.core.settings import HoldSettings, ParkSettings, WakeSettings
from poorwill.core.words import HoldId, Phase, Tier

from .replicas import (
    T0,
    Ahead,
    Always,
    Between,
    S,
    demand,
    draining,
    parked,
    parking,
    ready,
    rested,
    settings,
    waking,
)

Step = tuple[float, Input | Callable[[Replica], Input] | dict[str, object]]
"""Seconds after the step before; an input, or one of the replica's generation, or fields that are set."""


def of(kind: type, **given: object) -> Callable[[Replica], Input]:
    return lambda replica: kind(generation=replica.generation, **given)


WOKE, PARKED = of(WakeSucceeded), of(ParkSucceeded, image_bytes=7)
LIMIT = SpendChanged(blocked=Blocked(until_us=T0 + 900 * S, why="$5 a day are spent"))
NO_WAKES = SpendChanged(blocked=Blocked(until_us=T0 + 900 * S, why="a wake would exceed $5", wakes_only=True))
FREE = SpendChanged(blocked=None)
WEIGHTS = of(PhaseBegan, mark=PhaseMark(phase=Phase.WEIGHTS, at_us=T0))
READ = tuple(
    PhaseSpan(phase=phase, began_us=T0 + at * S, ended_us=T0 + (at + 1) * S, bytes_read=size, detail=detail)
    for phase, at, size, detail in (
        (Phase.PROVISION, 0, None, ""),
        (Phase.WEIGHTS, 1, 3 * 10**8, "expected 2100000000 B/s"),
    )
)
IMPATIENT = settings(
    wake=WakeSettings(budget_us=20 * S, cap_us=50 * S, phase_limits_us={Phase.WEIGHTS: 8 * S})
)
SMALL = settings(max_concurrency=1, hold=HoldSettings(count=2, bytes=10, age_us=15 * S))
NOTHING_HELD = settings(hold=HoldSettings(count=0))
LAX = settings(max_concurrency=0, target_concurrency=2)
ONLY_COLD = settings(park=ParkSettings(ladder=(Tier.COLD,), drain_us=5 * S))
EXPECTED = settings(wake=WakeSettings(budget_us=60 * S, cap_us=180 * S, expected_us={Tier.FROZEN: 3 * S}))
NIGHT = Between(T0 + 100 * S, T0 + 200 * S)

LIVES: dict[str, tuple[Callable[[], Replica], tuple[Step, ...]]] = {
    "two requests wait for a cold start, one leaves": (
        parked,
        (
            (0, demand(1)),
            (1, demand(2)),
            (1, WEIGHTS),
            (1, WEIGHTS),
            (1, Withdrawn(hold=HoldId(1))),
            (9, of(WakeSucceeded, anatomy=READ)),
            (1, {"load": Load(0, T0 + 20 * S, "serving")}),
            (1, Returned()),
            (40, Tick()),
            (4, PARKED),
            (300, Tick()),
        ),
    ),
    "all who wait leave": (waking, ((1, Withdrawn(hold=HoldId(0))), (5, WOKE), (29, Tick()), (2, Tick()))),
    "a snapshot fails, so it starts cold under the same cap": (
        partial(rested, Tier.FROZEN),
        (
            (1, demand(1)),
            (3, of(WakeFailed, why="criu: no", anatomy=READ)),
            (1, demand(2)),
            (9, of(WakeFailed, why="no memory")),
            (1, demand(3)),
            (5, demand(4)),
            (1, WAKE := WakeAsked(asked_by="app", why="demand", demand=True)),
            (4, WOKE),
        ),
    ),
    "a wake that finds no room leaves the snapshot": (
        partial(rested, Tier.FROZEN),
        (
            (1, demand(1)),
            (2, of(WakeFailed, why="no room", code=ErrorCode.NO_CAPACITY, kept=True)),
            (9, WakeAsked()),
            (2, WOKE),
        ),
    ),
    "a cold start fails three times": (
        parked,
        tuple(
            step
            for _ in range(3)
            for step in ((40, WakeAsked()), (1, demand(1)), (1, of(WakeFailed, why="exit status 1")))
        ),
    ),
    "a wake exceeds its budget, then its cap": (
        partial(waking, settings=IMPATIENT),
        (
            (19, Tick()),
            (1, Tick()),
            (29, Tick()),
            (1, Tick()),
            (1, Tick()),
            (0, of(WakeFailed, why="killed")),
        ),
    ),
    "a phase exceeds its limit": (
        partial(waking, Tier.FROZEN, settings=IMPATIENT),
        ((1, WEIGHTS), (7, Tick()), (1.004, Tick()), (0, of(WakeFailed, why="killed", anatomy=READ))),
    ),
    "a full queue": (
        partial(ready, in_flight=1, settings=SMALL),
        (
            (0, demand(1, size=4)),
            (1, demand(2, size=7)),
            (1, demand(3)),
            (1, demand(4)),
            (12, Tick()),
            (1, Tick()),
            (1, {"load": Load(0, T0, "serving")}),
            (0, Returned()),
        ),
    ),
    "a queue that holds nothing wakes all the same": (
        partial(parked, settings=NOTHING_HELD),
        ((0, demand(1)), (1, demand(2)), (5, WOKE), (1, demand(3))),
    ),
    "with help from others it takes less": (
        partial(ready, settings=LAX, helped=True),
        tuple((1, demand(number)) for number in range(3)),
    ),
    "others serve those who wait": (
        partial(ready, in_flight=1, settings=SMALL, backed=True),
        (
            (0, demand(1)),
            (1, of(EngineLost, why="exit status 9")),
            (9, WakeAsked()),
            (1, of(WakeFailed, why="again")),
        ),
    ),
    "a drain that a request cancels": (
        draining,
        (
            (1, demand(1)),
            (1, ParkAsked()),
            (1, WakeAsked(asked_by="alice")),
            (1, ParkAsked(tier=Tier.COLD)),
            (20, Tick()),
            (3, PARKED),
        ),
    ),
    "a firm park": (
        partial(ready, in_flight=1, floor=Always()),
        (
            (0, ParkAsked(why="room for b")),
            (1, ParkAsked(why="room for b", firm=True)),
            (1, demand(1)),
            (1, WakeAsked()),
            (1, {"load": Load(0, T0, "drain")}),
            (0, Returned()),
            (3, PARKED),
            (1, demand(2)),
        ),
    ),
    "a park that a floor refuses until it ends": (
        partial(ready, floor=NIGHT),
        ((150, ParkAsked()), (50, ParkAsked())),
    ),
    "a park is refused while others wait": (partial(ready, in_flight=2, held=1), ((1, ParkAsked()),)),
    "a drain without an end": (
        partial(draining, in_flight=2),
        ((19, Tick()), (1, Tick()), (1, demand(1)), (1, of(ParkFailed, why="disk", unharmed=True))),
    ),
    "parks fail, ever deeper": (
        parking,
        (
            (1, of(ParkFailed, why="criu: no", unharmed=True)),
            (1, of(ParkFailed, why="signal", unharmed=True)),
            (1, Tick()),
            (300, Tick()),
            (60, Tick()),
            (1, of(ParkFailed, why="criu: no", unharmed=False)),
            (1, WakeAsked()),
            (1, WOKE),
        ),
    ),
    "a park fails when somebody waits": (
        parking,
        (
            (1, demand(1)),
            (1, of(ParkFailed, why="criu: no", unharmed=True)),
            (1, {"load": Load(0, T0 + 3 * S, "serving")}),
            (500, Tick()),
            (1, PARKED),
            (1, WakeAsked()),
        ),
    ),
    "a park deeper fails": (
        partial(parking, Tier.COLD, came_from=Tier.FROZEN),
        (
            (1, of(ParkFailed, why="busy", unharmed=True)),
            (59, Tick()),
            (1, ParkAsked(tier=Tier.COLD)),
            (1, PARKED),
        ),
    ),
    "a request comes during a park": (parking, ((1, demand(1)), (1, PARKED), (2, WOKE))),
    "a bridged request comes during a park": (parking, ((1, WAKE), (1, WAKE), (1, PARKED), (2, WOKE))),
    "the engine dies young": (
        partial(ready, in_flight=2, held=1),
        ((9, of(EngineLost, why="signal 9")), (9, Tick())),
    ),
    "the engine dies old": (
        partial(ready, in_flight=2, held=1),
        ((61, of(EngineLost, why="signal 9")), (1, WOKE)),
    ),
    "the engine dies while it drains": (draining, ((1, of(EngineLost, why="signal 9")),)),
    "a failed park pauses what is as shallow, not what is deeper": (
        ready,
        (
            (0, {"park_after_us": T0 + 5000 * S, "park_failed": Tier.ASLEEP}),
            (299, Tick()),
            (1, Tick()),
        ),
    ),
    "the engine dies young twice, then old": (
        ready,
        (
            *(
                step
                for after in (9, 9, 61)
                for step in ((after, of(EngineLost, why="signal 9")), (20, WakeAsked()), (1, WOKE))
            ),
            (30, Tick()),
            (1, PARKED),
        ),
    ),
    "the engine dies idle, and the floor wakes it": (
        partial(ready, floor=Always()),
        ((61, Tick()), (1, of(EngineLost, why="signal 9")), (1, Tick()), (1, WOKE)),
    ),
    "a sleeping engine dies": (partial(rested, Tier.ASLEEP), ((9, of(EngineLost, why="signal 9")),)),
    "a host falls silent": (
        partial(ready, in_flight=1),
        (
            (1, of(EngineLost, why="no word for 3 s", unobserved=True)),
            (1, of(EngineLost, why="it is gone")),
            (1, of(EngineLost, why="again")),
        ),
    ),
    "an image is lost": (
        partial(rested, Tier.FROZEN),
        ((1, of(ImageLost, why="no such file")), (1, of(ImageLost, why="again"))),
    ),
    "an image of another tier": (partial(rested, Tier.ASLEEP), ((1, of(ImageLost, why="no such file")),)),
    "down the ladder": (
        ready,
        (
            (29, Tick()),
            (1, Tick()),
            (1, PARKED),
            (268, Tick()),
            (1, Tick()),
            (2, PARKED),
            (3000, Tick()),
            (1, PARKED),
            (9, Tick()),
        ),
    ),
    "a floor begins and ends": (
        partial(parked, floor=NIGHT),
        ((100, Tick()), (10, WOKE), (89, Tick()), (1, Tick()), (30, Tick()), (1, PARKED)),
    ),
    "a floor begins after a failure": (
        partial(parked, floor=NIGHT),
        ((99, WakeAsked()), (1, of(WakeFailed, why="exit status 1")), (1, Tick()), (4, Tick())),
    ),
    "a wake ahead of demand": (
        partial(parked, Tier.FROZEN, policy=Ahead()),
        ((59, Tick()), (1, Tick()), (2, WOKE), (27, Tick()), (1, Tick()), (1, PARKED), (9, Tick())),
    ),
    "a wake ahead of demand at the instant of the park": (
        partial(parked, Tier.FROZEN, policy=Ahead(), park_began_us=T0 + 60 * S),
        ((60, Tick()),),
    ),
    "a wake ahead of demand fails": (
        partial(parked, Tier.FROZEN, policy=Ahead()),
        ((60, Tick()), (1, of(WakeFailed, why="no room", kept=True)), (50, Tick())),
    ),
    "a wake ahead of demand meets demand": (
        partial(parked, Tier.FROZEN, policy=Ahead()),
        ((60, Tick()), (1, demand(1)), (2, of(WakeFailed, why="criu: no")), (2, WOKE)),
    ),
    "the limit is reached while it waits": (
        parked,
        ((0, LIMIT), (1, demand(1)), (1, WakeAsked()), (1, FREE), (1, demand(2))),
    ),
    "the limit is reached in a wake": (
        partial(waking, Tier.FROZEN),
        ((1, WEIGHTS), (1, LIMIT), (1, Tick()), (1, LIMIT), (1, of(WakeFailed, why="killed", anatomy=READ))),
    ),
    "the limit is reached while it serves": (
        partial(ready, in_flight=1, held=0),
        (
            (1, LIMIT),
            (1, demand(1)),
            (1, ParkAsked()),
            (1, demand(2)),
            (1, {"load": Load(0, T0, "drain")}),
            (0, Returned()),
            (1, PARKED),
            (1, demand(3)),
        ),
    ),
    "the limit is reached while it idles": (
        ready,
        (
            (1, LIMIT),
            (1, of(ParkFailed, why="disk", unharmed=True)),
            (1, of(ParkFailed, why="stuck", unharmed=True)),
            (1, Tick()),
            (60, Tick()),
            (60, Tick()),
        ),
    ),
    "the limit is reached while it sleeps": (
        partial(rested, Tier.ASLEEP),
        (
            (1, LIMIT),
            (0, Tick()),
            (1, of(ParkFailed, why="stuck", unharmed=True)),
            (1, Tick()),
            (60, Tick()),
            (1, PARKED),
        ),
    ),
    "the limit is reached when it cannot park but cold": (partial(ready, settings=ONLY_COLD), ((1, LIMIT),)),
    "wakes are forbidden, what is awake goes on": (
        partial(ready, in_flight=1),
        (
            (1, NO_WAKES),
            (1, demand(1)),
            (1, ParkAsked(firm=True)),
            (1, demand(2)),
            (19, Tick()),
            (1, PARKED),
            (1, demand(3)),
        ),
    ),
    "wakes are forbidden under a floor": (
        partial(parked, floor=Always()),
        ((1, NO_WAKES), (1, Tick()), (1, FREE), (0, Tick())),
    ),
    "a shutdown that parks": (
        partial(ready, in_flight=1),
        (
            (1, Close(action="park", drain_us=5 * S)),
            (1, demand(1)),
            (1, {"load": Load(0, T0, "drain")}),
            (0, Returned()),
            (2, PARKED),
            (1, WakeAsked()),
            (1, Tick()),
        ),
    ),
    "a shutdown that leaves": (
        partial(ready, in_flight=2),
        ((1, Close(action="leave", drain_us=5 * S)), (4, Tick()), (1, Tick()), (1, Tick())),
    ),
    "a shutdown that stops": (
        partial(ready, in_flight=1),
        (
            (1, Close(action="stop", why="SIGTERM")),
            (20, Tick()),
            (2, of(ParkFailed, why="stuck", unharmed=True)),
        ),
    ),
    "a shutdown during a wake": (
        partial(waking, Tier.FROZEN),
        ((1, Close(action="park")), (1, of(WakeFailed, why="killed"))),
    ),
    "a shutdown that a wake outruns": (waking, ((1, Close(action="park")), (1, WOKE), (1, PARKED))),
    "a shutdown that leaves a wake alone": (waking, ((1, Close(action="leave")), (1, WOKE))),
    "a shutdown during a drain": (
        draining,
        ((1, Close(action="stop")), (1, demand(1)), (18, Tick()), (1, PARKED)),
    ),
    "a shutdown during a drain that parks": (
        draining,
        ((1, Close(action="park", drain_us=90 * S)), (19, Tick()), (1, PARKED)),
    ),
    "a shutdown during a park": (
        parking,
        (
            (1, demand(1)),
            (1, Close(action="park")),
            (1, of(ParkFailed, why="criu: no", unharmed=True)),
            (1, PARKED),
        ),
    ),
    "a shutdown that stops a sleeper": (
        partial(rested, Tier.ASLEEP),
        ((1, Close(action="stop")), (1, PARKED)),
    ),
    "a shutdown that stops one falling asleep": (
        partial(parking, Tier.ASLEEP),
        ((1, Close(action="stop")), (1, PARKED), (1, PARKED)),
    ),
    "an operator parks and wakes": (
        ready,
        (
            (1, ParkAsked()),
            (1, PARKED),
            (1, ParkAsked(tier=Tier.FROZEN)),
            (1, PARKED),
            (1, ParkAsked(tier=Tier.FROZEN)),
            (1, ParkAsked(tier=Tier.ASLEEP)),
            (1, WakeAsked()),
            (1, WOKE),
        ),
    ),
    "it says when to try again": (
        partial(parked, Tier.FROZEN, settings=EXPECTED),
        ((0, WakeAsked()), (1, NO_WAKES), (1, demand(1)), (1, LIMIT), (0, FREE), (7, Close(action="leave"))),
    ),
    "old reports change nothing": (
        waking,
        tuple(
            (1, kind(generation=0, **more))
            for kind, more in ((WakeSucceeded, {}), (WakeFailed, {"why": "x"}), (EngineLost, {"why": "x"}))
        ),
    ),
}
