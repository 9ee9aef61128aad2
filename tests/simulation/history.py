"""A history: what a fleet consists of and what happens to it, as data. Drawn from a seed, shrunk, printed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from poorwill.core.settings import DeviceNeed, HoldSettings, ParkSettings, PolicySettings, WakeSettings
from poorwill.core.words import SECOND_US, Tier

LADDERS = (
    (Tier.COLD,),
    (Tier.FROZEN, Tier.COLD),
    (Tier.FROZEN,),
    (Tier.ASLEEP, Tier.COLD),
    (Tier.ASLEEP, Tier.FROZEN, Tier.COLD),
)


class Happening(StrEnum):
    """What can happen in a history, besides what the fleet does by itself."""

    ASK = "ask"
    ENGINE_DIES = "engine dies"
    IMAGE_ROTS = "image rots"
    IMAGE_GARBLED = "image is garbled"
    DISK_FILLS = "disk fills"
    CLOCK_STEPS = "clock steps"
    LIMIT_TRIPS = "limit trips"
    RELOAD = "configuration is reloaded"
    FOREIGN = "a foreign program takes a device"
    WAKE_ASKED = "operator wakes"
    PARK_ASKED = "operator parks"
    SILENCE = "a host falls silent"
    RESTART = "restart"
    KILL = "kill"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One happening at `at_us` after the history began. `number` picks a model, a tier, an action."""

    at_us: int
    what: Happening
    number: int = 0
    lasts_us: int = 0
    """How long the request is served, the disk is full, the limit holds."""
    leaves_us: int | None = None
    """When the client of an ASK loses its patience, from its arrival; None: never."""
    retries: int = 0
    """How often the client of an ASK tries again after an error that says when."""
    bridged: bool = False
    """The client of an ASK goes to a hosted API if the fleet sends it there."""
    streams: bool = False
    key: str = "a"
    slow: bool = False
    """The client of an ASK reads slowly: again and again it takes no more for a while."""


@dataclass(frozen=True, kw_only=True)
class SimulatedModel:
    """One model of the fleet: what `fleet.toml` would say of it."""

    ladder: tuple[Tier, ...]
    policy: PolicySettings
    concurrency: int = 0
    replicas: int = 1
    devices: DeviceNeed = field(default_factory=DeviceNeed)
    hold: HoldSettings = field(default_factory=HoldSettings)
    wake: WakeSettings = field(default_factory=WakeSettings)
    park: ParkSettings = field(default_factory=ParkSettings)
    memory_bytes: int = 0
    priority: int = 0
    floor_s: tuple[int, int] | None = None
    """From when until when the replica must be ready, after the history began."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Everything that makes a run: two runs of one history do the same, callback for callback."""

    seed: int
    """Of the weather: which call of which driver fails, and how long it takes."""
    models: tuple[SimulatedModel, ...]
    events: tuple[Event, ...]
    memory_bytes: int = 0
    gpus: tuple[int, ...] = ()
    """The bytes of each device; none: the fleet gives none out."""
    keeps_bytes: int = 0
    """What an engine keeps of a device while it sleeps."""
    alive_s: float = 1.0
    """Between two signs of life."""
    reap_orphans: bool = True
    calm: bool = False
    """No driver or engine fails by itself; only events do harm."""

    def without(self, begin: int, end: int) -> "History":
        """Return the history without some of its events."""
        return replace(self, events=(*self.events[:begin], *self.events[end:]))


def draw_history(seed: int, *, requests: int = 300) -> History:
    """Return the history of a seed."""
    rng = random.Random(f"history {seed}")
    gpus = rng.choice(((), (), (24,), (80,), (24, 80), (40, 40, 80)))
    models = tuple(_draw_model(rng, gpus) for _ in range(rng.choice((1, 1, 2, 3))))
    events: list[Event] = []
    at_us = 0
    while len(events) < requests:
        at_us += _draw_gap_us(rng)
        burst = rng.choice((1, 1, 1, 2, 3, 8))
        for _ in range(burst):
            at_us += rng.choice((0, 0, 1, rng.randint(1, SECOND_US)))
            events.append(_draw_request(rng, at_us, len(models)))
        if rng.random() < 0.25:
            events.append(_draw_trouble(rng, at_us + rng.randint(0, 60 * SECOND_US), len(models)))
    return History(
        seed=seed,
        models=models,
        events=tuple(sorted(events, key=lambda event: event.at_us)),
        memory_bytes=rng.choice((0, 0, 100, 200)),
        gpus=gpus,
        keeps_bytes=rng.choice((0, 2, 5)),
        alive_s=rng.choice((5.0, *[60.0] * 7)),
        reap_orphans=rng.random() < 0.8,
        calm=rng.random() < 0.2,
    )


def _draw_gap_us(rng: random.Random) -> int:
    scale_s = rng.choice((0.01, 1, 10, 31, 120, 600))
    return int(rng.uniform(0.1, 2) * scale_s * SECOND_US)


def _draw_request(rng: random.Random, at_us: int, models: int) -> Event:
    patience = rng.choice((None, None, None, 0, rng.randint(1, 90 * SECOND_US)))
    return Event(
        at_us=at_us,
        what=Happening.ASK,
        number=rng.randrange(models),
        lasts_us=int(rng.expovariate(1 / rng.choice((0.05, 2, 20))) * SECOND_US) + 1,
        leaves_us=patience,
        retries=rng.choice((0, 0, 1, 5)),
        bridged=rng.random() < 0.1,
        streams=rng.random() < 0.5,
        key=rng.choice("aaabbc"),
        slow=rng.random() < 0.1,
    )


def _draw_trouble(rng: random.Random, at_us: int, models: int) -> Event:
    what = rng.choice([happening for happening in Happening if happening is not Happening.ASK])
    return Event(
        at_us=at_us,
        what=what,
        number=rng.randrange(12),
        lasts_us=int(rng.expovariate(1 / 60) * SECOND_US) + 1,
    )


def _draw_model(rng: random.Random, gpus: Sequence[int]) -> SimulatedModel:
    ladder = rng.choice(LADDERS)
    name = rng.choice(("fixed", "fixed", "break-even", "ladder", "adaptive"))
    rungs = {tier: rng.choice((60, 120, 900)) * SECOND_US * depth for depth, tier in enumerate(ladder[1:], 1)}
    policy = PolicySettings(name=name)
    if name == "fixed":
        policy = PolicySettings(name=name, idle_us=rng.choice((0, 1, 30)) * SECOND_US, rungs_us=rungs)
    return SimulatedModel(
        ladder=ladder,
        policy=policy,
        concurrency=rng.choice((0, 0, 1, 2, 4)),
        replicas=rng.choice((1, 1, 1, 2, 3)),
        devices=_draw_need(rng, gpus),
        hold=HoldSettings(count=rng.choice((0, 2, 256)), age_us=rng.choice((20, 600)) * SECOND_US),
        wake=WakeSettings(
            budget_us=rng.choice((5, 30, 300)) * SECOND_US,
            cap_us=rng.choice((60, 900)) * SECOND_US,
            backoff_us=rng.choice((1, 5)) * SECOND_US,
            backoff_max_us=120 * SECOND_US,
        ),
        park=ParkSettings(ladder=ladder, drain_us=rng.choice((1, 20)) * SECOND_US, limit_us=30 * SECOND_US),
        memory_bytes=rng.choice((30, 60, 90)),
        priority=rng.choice((0, 0, 1)),
        floor_s=rng.choice((None, None, None, (300, 1200))),
    )


def _draw_need(rng: random.Random, gpus: Sequence[int]) -> DeviceNeed:
    if not gpus:
        return DeviceNeed()
    share = rng.randint(1, max(gpus))
    needs = (
        DeviceNeed(),
        DeviceNeed(gpus=rng.randint(1, len(gpus))),
        DeviceNeed(gpu_memory_bytes=share),
        DeviceNeed(gpu_memory_bytes=max(share // 3, 1), apart=("m0",)),
    )
    return rng.choice(needs)
