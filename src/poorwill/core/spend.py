"""The spend breaker, pure: what was spent against what may be, and what follows.

Windows are UTC days and months. A limit trips when what is spent, plus what may still be spent before
anything can be stopped, reaches it: so that it is not passed. It lifts by itself when its window ends, or
when the limit is raised.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from poorwill.core.errors import ErrorCode, TryLater
from poorwill.core.money import NUSD, dollars
from poorwill.core.settings import SpendSettings
from poorwill.core.words import SECOND_US

CENT = NUSD // 100


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one window has cost so far, and what may still be spent before anything can be stopped."""

    window: Window
    began_us: int
    ends_us: int
    total_nusd: int
    models_nusd: Mapping[str, int]
    keys_nusd: Mapping[str, int]
    ahead_nusd: int = 0
    models_ahead_nusd: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """One limit, measured."""

    scope: Scope
    name: str
    window: Window
    limit_nusd: int
    spent_nusd: int
    ahead_nusd: int = 0
    """What may still be spent before anything can be stopped."""
    forecast_nusd: int | None
    """Expected at the window's end at the pace so far, None while too little of it has passed."""
    standing: Standing
    ends_us: int

    @property
    def setting(self) -> str:
        """Which setting of `fleet.toml` lifts it."""
        prefix = "" if self.scope is Scope.TOTAL else f"{self.scope}_"
        return f"spend.{prefix}{self.window}_usd"

    @property
    def why(self) -> str:
        """What happened and how to lift it, for people."""
        whose = "" if self.scope is Scope.TOTAL else f" of {self.scope} {self.name}"
        used = "is used up" if self.standing is Standing.TRIPPED else "is nearly used up"
        spent = f"{dollars(self.spent_nusd)} spent"
        if self.ahead_nusd >= CENT:
            spent += f", up to {dollars(self.ahead_nusd)} more under way or with the next wake"
        limit = dollars(self.limit_nusd)
        return f"the {self.window}'s spend limit{whose}, {limit}, {used}: {spent}; raise {self.setting}"

    def retry_after_s(self, now_us: int) -> int:
        """Return when it lifts by itself, in whole seconds."""
        return max(1, -((now_us - self.ends_us) // SECOND_US))

    def refusal(self, now_us: int) -> TryLater:
        """Return the error for a request that it stops."""
        return TryLater(ErrorCode.SPEND_LIMIT, self.why, retry_after_s=self.retry_after_s(now_us))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Every configured limit at one look."""

    at_us: int
    limits: tuple[LimitState, ...] = ()

    def stops_model(self, model: str) -> LimitState | None:
        """Return the tripped limit that forbids waking this model: the one that lifts last."""
        return _lifting_last(
            limit
            for limit in self.limits
            if limit.scope is Scope.TOTAL or (limit.scope is Scope.MODEL and limit.name == model)
        )

    def stops_key(self, key: str) -> LimitState | None:
        """Return the tripped limit that refuses this key's requests."""
        return _lifting_last(
            limit for limit in self.limits if limit.scope is Scope.KEY and limit.name == key
        )

    def warnings(self) -> Sequence[LimitState]:
        """Return the limits that are near, or forecast to be passed, but not tripped."""
        return [limit for limit in self.limits if limit.standing is Standing.WARNED]


FORECAST_AFTER_SHARE = 24
"""A forecast needs at least this fraction (1/24) of its window behind it."""


def judge(settings: SpendSettings, spent: Sequence[Spent], *, now_us: int) -> Verdict:
    """Return how every configured limit stands."""
    found = [
        _measure(settings, window, scope, name, limit_nusd, now_us)
        for window in spent
        for scope, name, limit_nusd in _limits(settings, window.window)
    ]
    return Verdict(at_us=now_us, limits=tuple(found))


def _lifting_last(limits: Iterable[LimitState]) -> LimitState | None:
    tripped = [limit for limit in limits if limit.standing is Standing.TRIPPED]
    return max(tripped, key=lambda limit: limit.ends_us, default=None)


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
    if scope is Scope.TOTAL:
        used, ahead = spent.total_nusd, spent.ahead_nusd
    elif scope is Scope.MODEL:
        used, ahead = spent.models_nusd.get(name, 0), spent.models_ahead_nusd.get(name, 0)
    else:
        used, ahead = spent.keys_nusd.get(name, 0), 0
    forecast = _forecast(used, spent, now_us)
    near = used >= settings.warn_share * limit_nusd
    if used + ahead >= limit_nusd:
        standing = Standing.TRIPPED
    elif near or (forecast is not None and forecast > limit_nusd):
        standing = Standing.WARNED
    else:
        standing = Standing.WITHIN
    return LimitState(
        scope=scope,
        name=name,
        window=spent.window,
        limit_nusd=limit_nusd,
        spent_nusd=used,
        ahead_nusd=ahead,
        forecast_nusd=forecast,
        standing=standing,
        ends_us=spent.ends_us,
    )


def _forecast(used_nusd: int, spent: Spent, now_us: int) -> int | None:
    """spent x length of the window / time passed."""
    passed_us, length_us = now_us - spent.began_us, spent.ends_us - spent.began_us
    if passed_us * FORECAST_AFTER_SHARE < length_us:
        return None
    return used_nusd * length_us // passed_us
