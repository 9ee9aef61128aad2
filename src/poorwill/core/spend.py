"""The spend breaker, pure: compares what was spent with the limits, and says what each limit stops.

Windows are UTC days and months. A limit is used up when what is spent, plus what can no longer be avoided,
reaches it, so that it is never exceeded. Before that it stops wakes that would not fit. It lifts by itself
when its window ends, or when somebody raises it, or lifts it until then.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.format import money
from poorwill.core.money import NUSD
from poorwill.core.settings import SpendSettings
from poorwill.core.words import SECOND_US

CENT = NUSD // 100
_NO_END = 1 << 62


class Scope(StrEnum):
    """Whose spending a limit bounds."""

    TOTAL = "total"
    MODEL = "model"
    KEY = "key"


class Window(StrEnum):
    """Over which time a limit holds."""

    DAY = "day"
    MONTH = "month"


class Standing(StrEnum):
    """How near a limit is."""

    WITHIN = "within"
    WARNED = "warned"
    TRIPPED = "tripped"
    LIFTED = "lifted"
    """By an operator, until its window ends."""


class LimitDocument(Struct, frozen=True, kw_only=True):
    """A spend limit for machines; `key` names it in `[spend]`. An empty `to_lift`: it stops nothing soon."""

    scope: Scope
    name: str | None
    window: Window
    key: str
    currency: str
    limit_nusd: int
    spent_nusd: int
    ahead_nusd: int
    reserved_nusd: int = 0
    forecast_nusd: int | None
    standing: Standing
    what: str
    lifts: str
    lifts_in_s: int
    to_lift: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostAhead:
    """What a model may still cost in a window."""

    certain_nusd: int = 0
    """What cannot be avoided: running until the next check, stopping, and being parked to the window's
    end."""
    wake_nusd: int = 0
    """What the rest of a wake under way would cost beyond that."""
    next_nusd: int = 0
    """What one more wake would cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one window has cost so far, and what lies ahead, by model."""

    window: Window
    began_us: int
    """When it began, or the ledger in it."""
    ends_us: int
    total_nusd: int
    models_nusd: Mapping[str, int]
    keys_nusd: Mapping[str, int]
    ahead: Mapping[str, CostAhead] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """One limit, measured."""

    scope: Scope
    name: str
    window: Window
    limit_nusd: int
    spent_nusd: int
    ahead_nusd: int = 0
    """What will be spent even if everything stops now."""
    under_way_nusd: int = 0
    """What wakes under way may cost beyond that."""
    reserved_nusd: int = 0
    """The most that requests at hosted APIs may still be charged."""
    next_nusd: Mapping[str, int] = field(default_factory=dict)
    """What one more wake of a model would cost."""
    forecast_nusd: int | None
    """Expected at the window's end at the pace so far, None while too little of it has passed."""
    standing: Standing
    ends_us: int
    currency: str = "USD"

    @property
    def used_up(self) -> bool:
        """Whether nothing more may be spent."""
        return self.left_nusd <= 0

    @property
    def left_nusd(self) -> int:
        """What is neither spent, nor certain to be, nor reserved; a lifted limit has no end."""
        if self.standing is Standing.LIFTED:
            return _NO_END
        return self.limit_nusd - self.spent_nusd - self.ahead_nusd - self.reserved_nusd

    @property
    def name_in_file(self) -> str:
        """Return the key of `[spend]` in `fleet.toml` that sets it."""
        prefix = "" if self.scope is Scope.TOTAL else f"{self.scope}_"
        suffix = "" if self.scope is Scope.TOTAL else f".{self.name}"
        return f"{prefix}{self.window}_usd{suffix}"

    @property
    def how_to_lift(self) -> str:
        """Say what lifts it before its window ends."""
        return (
            f"raise {self.name_in_file} under [spend] in fleet.toml and reload, or lift it on the dashboard"
        )

    @property
    def what(self) -> str:
        """Which limit it is and how it stands, for people."""
        whose = "" if self.scope is Scope.TOTAL else f" of {self.scope} {self.name}"
        return f"the {self.window}'s spend limit{whose}, {self._money(self.limit_nusd)}, {self._used()}"

    def _money(self, amount_nusd: int) -> str:
        return money(amount_nusd, self.currency)

    def _used(self) -> str:
        spent = f"{self._money(self.spent_nusd)} spent"
        if self.ahead_nusd >= CENT:
            spent += f", up to {self._money(self.ahead_nusd)} more even if all stops now"
        if self.reserved_nusd:
            spent += f", {self._money(self.reserved_nusd)} reserved for requests at hosted APIs"
        if self.standing is Standing.LIFTED:
            return f"is lifted: {spent}"
        if self.used_up:
            return f"is used up: {spent}"
        if self.standing is Standing.TRIPPED:
            stopped = [name for name in sorted(self.next_nusd) if self.stops_wake(name)]
            wakes = ", ".join(f"{name} {self._money(self.next_nusd[name])}" for name in stopped)
            return f"has no room for another wake ({wakes}): {spent}"
        if self.standing is Standing.WITHIN:
            return f"is not reached: {spent}"
        if self.forecast_nusd is not None and self.forecast_nusd > self.limit_nusd:
            return f"will be passed at this pace ({self._money(self.forecast_nusd)}): {spent}"
        return f"is nearly used up: {spent}"

    @property
    def why(self) -> str:
        """What happened and when it lifts by itself, for clients."""
        return f"{self.what}; it lifts by itself at {utc_minute(self.ends_us)}"

    def document(self, now_us: int) -> LimitDocument:
        """Return it for machines."""
        return LimitDocument(
            scope=self.scope,
            name=self.name or None,
            window=self.window,
            key=self.name_in_file,
            currency=self.currency,
            limit_nusd=self.limit_nusd,
            spent_nusd=self.spent_nusd,
            ahead_nusd=self.ahead_nusd,
            reserved_nusd=self.reserved_nusd,
            forecast_nusd=self.forecast_nusd,
            standing=self.standing,
            what=self.what,
            lifts=utc_minute(self.ends_us),
            lifts_in_s=max(self.ends_us - now_us, 0) // SECOND_US,
            to_lift=self.how_to_lift if self.standing in (Standing.WARNED, Standing.TRIPPED) else "",
        )

    def bounds(self, model: str) -> bool:
        """Return whether a model's time counts towards it."""
        return self.scope is Scope.TOTAL or (self.scope is Scope.MODEL and self.name == model)

    def stops_wake(self, model: str) -> bool:
        """Return whether a wake of this model might not fit into what is left."""
        return self.used_up or self.left_nusd - self.under_way_nusd < self.next_nusd.get(model, 0)

    def refusal(self, now_us: int) -> TryLater:
        """Return the error for a request that it stops."""
        retry_after_s = max(1, -((now_us - self.ends_us) // SECOND_US))
        return TryLater(ErrorCode.SPEND_LIMIT, self.why, retry_after_s=retry_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Every configured limit at one check."""

    at_us: int
    limits: tuple[LimitState, ...] = ()

    def stops_model(self, model: str) -> LimitState | None:
        """Return the limit that forbids paying for this model at all: the one that lifts last."""
        return _lifting_last(each for each in self.limits if each.bounds(model) and each.used_up)

    def stops_wake(self, model: str) -> LimitState | None:
        """Return the limit that forbids waking this model: the one that lifts last."""
        return _lifting_last(each for each in self.limits if each.bounds(model) and each.stops_wake(model))

    def stops_key(self, key: str) -> LimitState | None:
        """Return the limit that refuses this key's requests: the one that lifts last."""
        return _lifting_last(
            each for each in self.limits if each.scope is Scope.KEY and each.name == key and each.used_up
        )

    def with_wake(self, model: str) -> "Verdict":
        """Return how the limits stand once a wake of this model has begun: it takes what it may cost."""
        return replace(
            self,
            limits=tuple(
                replace(each, under_way_nusd=each.under_way_nusd + each.next_nusd.get(model, 0))
                for each in self.limits
            ),
        )

    def has_room(self, charge: "HostedCharge") -> bool:
        """Return whether a charge fits into every limit that bounds it, with all wakes under way."""
        return all(
            charge.nusd < each.left_nusd - each.under_way_nusd for each in self.limits if charge.counts(each)
        )

    def with_paid(self, charge: "HostedCharge") -> "Verdict":
        """Return how the limits stand once a hosted API was paid."""
        return self._with(charge, lambda one: replace(one, spent_nusd=one.spent_nusd + charge.nusd))

    def with_reserved(self, charge: "HostedCharge") -> "Verdict":
        """Return how the limits stand while a request is at a hosted API that may charge so much."""
        return self._with(charge, lambda one: replace(one, reserved_nusd=one.reserved_nusd + charge.nusd))

    def _with(self, charge: "HostedCharge", after: Callable[[LimitState], LimitState]) -> "Verdict":
        return replace(
            self, limits=tuple(after(each) if charge.counts(each) else each for each in self.limits)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedCharge:
    """What a hosted API charges, or may charge, for a request of a model and a key."""

    model: str
    key: str
    nusd: int

    def counts(self, limit: LimitState) -> bool:
        """Return whether it counts towards a limit."""
        return limit.bounds(self.model) or (limit.scope is Scope.KEY and limit.name == self.key)


FORECAST_AFTER_SHARE = 24
"""A forecast needs at least this fraction (1/24) of its window behind it."""


def judge(
    settings: SpendSettings, spent: Sequence[Spent], *, now_us: int, lifted: Collection[str] = ()
) -> Verdict:
    """Return how every configured limit stands. `lifted` names those lifted until their windows end."""
    found = [
        _measure(settings, window, scope, name, limit_nusd, now_us)
        for window in spent
        for scope, name, limit_nusd in _limits(settings, window.window)
    ]
    lifts = (replace(one, standing=Standing.LIFTED) if one.name_in_file in lifted else one for one in found)
    return Verdict(at_us=now_us, limits=tuple(lifts))


def utc_minute(at_us: int) -> str:
    """Return an instant to the minute, for people."""
    return f"{datetime.fromtimestamp(at_us // SECOND_US, tz=UTC):%Y-%m-%d %H:%M} UTC"


def _lifting_last(limits: Iterable[LimitState]) -> LimitState | None:
    return max(limits, key=lambda limit: limit.ends_us, default=None)


def _limits(settings: SpendSettings, window: Window) -> list[tuple[Scope, str, int]]:
    day = window is Window.DAY
    total = settings.day_nusd if day else settings.month_nusd
    models = settings.model_day_nusd if day else settings.model_month_nusd
    keys = settings.key_day_nusd if day else settings.key_month_nusd
    found = [] if total is None else [(Scope.TOTAL, "", total)]
    found += [(Scope.MODEL, name, limit) for name, limit in sorted(models.items())]
    found += [(Scope.KEY, name, limit) for name, limit in sorted(keys.items())]
    return found


def _measure(
    settings: SpendSettings, spent: Spent, scope: Scope, name: str, limit_nusd: int, now_us: int
) -> LimitState:
    ahead: Mapping[str, CostAhead] = {}
    if scope is Scope.TOTAL:
        used, ahead = spent.total_nusd, spent.ahead
    elif scope is Scope.MODEL:
        used = spent.models_nusd.get(name, 0)
        ahead = {name: spent.ahead[name]} if name in spent.ahead else {}
    else:
        used = spent.keys_nusd.get(name, 0)
    state = LimitState(
        scope=scope,
        name=name,
        window=spent.window,
        limit_nusd=limit_nusd,
        spent_nusd=used,
        ahead_nusd=sum(each.certain_nusd for each in ahead.values()),
        under_way_nusd=sum(each.wake_nusd for each in ahead.values()),
        next_nusd={model: each.next_nusd for model, each in ahead.items()},
        forecast_nusd=_forecast(used, spent, now_us),
        standing=Standing.WITHIN,
        ends_us=spent.ends_us,
        currency=settings.currency,
    )
    return replace(state, standing=_standing(state, settings.warn_share))


def _standing(state: LimitState, warn_share: float) -> Standing:
    if state.used_up or any(state.stops_wake(model) for model in state.next_nusd):
        return Standing.TRIPPED
    leads_past = state.forecast_nusd is not None and state.forecast_nusd > state.limit_nusd
    near = state.spent_nusd >= warn_share * state.limit_nusd
    return Standing.WARNED if near or leads_past else Standing.WITHIN


def _forecast(used_nusd: int, spent: Spent, now_us: int) -> int | None:
    """spent x length of the window / time passed."""
    passed_us, length_us = now_us - spent.began_us, spent.ends_us - spent.began_us
    if passed_us * FORECAST_AFTER_SHARE < length_us:
        return None
    return used_nusd * length_us // passed_us
