"""Random but possible lives of replicas, for property tests."""

import json
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from poorwill.core.entries import (
    Alive,
    ParkEnded,
    PhaseSpan,
    ReplicaCreated,
    ReplicaEnded,
    ReplicaPlaced,
    RequestEnded,
    SpanOpened,
    WakeBegan,
    WakeEnded,
)
from poorwill.core.ports.silence import ON_HOST
from poorwill.core.settings import RateSettings
from poorwill.core.words import DRAIN, LINGER, PARK, SERVING, Phase, Tier, parked, waking

from .story import START

HOUR = 3_600_000_000

GAPS = st.one_of(
    st.integers(1, 50),
    st.integers(1, 3 * HOUR),
    st.sampled_from([HOUR, 24 * HOUR, 16 * HOUR]),  # START is 08:00: 16 h later is midnight
)
HOSTS = st.sampled_from(["", "east", "west"])
KEYS = st.sampled_from(["ann", "bob", ""])


@dataclass
class Life:
    """Draws one replica's life, entry by entry."""

    draw: st.DrawFn
    name: str
    at_us: int = START
    number: int = 0

    def tick(self) -> int:
        self.at_us += self.draw(GAPS)
        return self.at_us

    def span(self, cause, **fields):
        return SpanOpened(replica=self.name, at_us=self.at_us, cause=cause, **fields)

    def placed(self):
        where = json.dumps({"machine": self.draw(HOSTS)})
        return ReplicaPlaced(replica=self.name, at_us=self.at_us, generation=self.number, running_json=where)

    def wake(self, tier: Tier, ids: list[str]):
        self.number += 1
        wake = f"{self.name}.{self.number}"
        began_us = self.at_us
        entries = [
            WakeBegan(
                wake=wake,
                replica=self.name,
                model=self.name[0],
                generation=self.number,
                at_us=began_us,
                from_tier=tier,
                asked_by="x",
                why="demand" if ids else "floor",
                budget_us=None,
            ),
            self.span(waking(Phase.PROVISION), tier=tier, wake=wake),
        ]
        edges = [began_us]
        for phase in self.draw(st.lists(st.sampled_from([Phase.WEIGHTS, Phase.GRAPHS]), max_size=2)):
            edges.append(self.tick())
            entries.append(self.span(waking(phase), tier=tier, wake=wake))
        edges.append(self.tick())
        ok = self.draw(st.booleans())
        anatomy = ()
        if self.draw(st.booleans()):
            anatomy = tuple(
                PhaseSpan(phase=Phase.PROVISION, began_us=a, ended_us=b, detail=ON_HOST + host)
                for host in [self.draw(HOSTS)]
                for a, b in pairwise(edges)
            )
        entries.append(
            WakeEnded(
                wake=wake,
                replica=self.name,
                at_us=self.at_us,
                ok=ok,
                anatomy=anatomy,
                served=tuple(ids),
            )
        )
        return entries, wake, ok

    def crossed(self, wake: str, began_us: int):
        """Requests that went over the bridge while it woke; some hosted APIs tell no usage."""
        rows = []
        for number in range(self.draw(st.integers(0, 2))):
            told = self.draw(st.booleans())
            rows.append(
                RequestEnded(
                    request=f"{wake}-over-{number}",
                    model=self.name[0],
                    replica=None,
                    key=self.draw(KEYS),
                    path="/v1/completions",
                    arrived_us=began_us,
                    leased_us=began_us + self.draw(st.integers(0, 1000)),
                    first_byte_us=None,
                    ended_us=began_us + 1000 + self.draw(GAPS),
                    status=200,
                    outcome=self.draw(st.sampled_from(["ok", "client_gone"])),
                    tokens_in=self.draw(st.integers(0, 9)) if told else None,
                    tokens_out=self.draw(st.integers(0, 9)) if told else None,
                    wake=self.draw(st.sampled_from([wake, None])),
                    bridge=self.draw(st.sampled_from(["x/one", "x/two"])),
                    bridge_nusd=self.draw(st.integers(0, 10**6)) if told else 0,
                )
            )
        return rows

    def busy(self, wake: str | None, ids: list[str]):
        """Serve some requests, some at once, then fall idle; rows come as requests end."""
        entries = [self.span(SERVING)]
        begin = self.at_us
        ends = []
        for i in range(max(len(ids), self.draw(st.integers(1, 4)))):
            leased = begin if i == 0 else begin + self.draw(st.integers(0, 2 * HOUR))
            ends.append((leased + self.draw(GAPS), leased, i))
        last = max(end for end, _, _ in ends)
        rows = [
            RequestEnded(
                request=ids[i] if i < len(ids) else f"{self.name}-{begin}-{i}",
                model=self.name[0],
                replica=self.name,
                key=self.draw(KEYS),
                path="/v1/completions",
                arrived_us=leased,
                leased_us=leased,
                first_byte_us=None,
                ended_us=end,
                status=200,
                outcome="ok",
                tokens_in=self.draw(st.integers(0, 9)),
                tokens_out=self.draw(st.one_of(st.none(), st.integers(0, 9))),
                wake=wake if i < len(ids) else None,
            )
            for end, leased, i in sorted(ends)
        ]
        if self.draw(st.booleans()) and last - begin > 2:
            middle = begin + self.draw(st.integers(1, last - begin - 1))
            entries.append(SpanOpened(replica=self.name, at_us=middle, cause=DRAIN, tier=Tier.FROZEN))
        self.at_us = last
        return [*entries, *rows]


@st.composite
def stories(draw, *, replicas=2):
    """Batches of entries, in the order of time within a replica, interleaved between replicas."""
    batches: list[list] = []
    for number in range(draw(st.integers(1, replicas))):
        life = Life(draw, f"{'ab'[number]}.0")
        mine = [[ReplicaCreated(replica=life.name, model=life.name[0], driver="d", at_us=life.at_us)]]
        tier = Tier.COLD
        for _ in range(draw(st.integers(0, 4))):
            life.tick()
            ids = [f"{life.name}-{life.at_us}-{i}" for i in range(draw(st.integers(0, 2)))]
            began_us = life.at_us
            entries, wake, ok = life.wake(tier, ids)
            mine.append([*entries, *life.crossed(wake, began_us)])
            if ok:
                mine.append(life.busy(wake if ids else None, ids))
                mine.append([life.span(LINGER, why="fixed")])
                began = life.tick()
                mine.append([life.span(PARK, tier=Tier.FROZEN)])
                life.tick()
                tier = Tier.FROZEN
                mine.append(
                    [
                        ParkEnded(
                            replica=life.name,
                            at_us=life.at_us,
                            began_us=began,
                            to_tier=tier,
                            ok=True,
                            image_bytes=draw(st.integers(0, 10**11)),
                        ),
                        life.span(parked(tier), tier=tier),
                        life.placed(),
                    ]
                )
            else:
                mine[-1].append(life.span(parked(tier), tier=tier))
        if draw(st.booleans()):
            mine.append([ReplicaEnded(replica=life.name, at_us=life.tick())])
        else:
            mine.append([Alive(at_us=life.tick())])
        batches += mine
    return batches


@st.composite
def rates(draw, *, count=4):
    """Effective-dated rates of any scope."""
    return [
        RateSettings(
            effective_us=START + draw(st.integers(-HOUR, 200 * HOUR)),
            active_nusd_h=draw(st.integers(0, 10**11)),
            parked_nusd_h={
                tier: draw(st.integers(0, 10**9))
                for tier in draw(st.sets(st.sampled_from([Tier.FROZEN, Tier.COLD])))
            },
            storage_nusd_gb_month=draw(st.sampled_from([0, 80_000_000])),
            increment_us=draw(st.sampled_from([1, 1_000_000, 60_000_000, HOUR])),
            minimum_us=draw(st.sampled_from([0, 60_000_000])),
            model=draw(st.sampled_from([None, "a", "b"])),
            host=draw(st.sampled_from([None, "east", "west"])),
        )
        for _ in range(draw(st.integers(0, count)))
    ]


def last_us(batches) -> int:
    """The latest instant of a story."""
    return max(getattr(entry, "ended_us", None) or entry.at_us for batch in batches for entry in batch)
