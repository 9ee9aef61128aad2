"""Who is let in, and the limits of each key: models, requests and tokens a minute, requests at once and held.

What a minute allows is refilled evenly. Tokens are known when a request is over: it is let in while some are
left, and what it took may be owed. A count that is not known is taken for the number of bytes, which it
cannot exceed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from poorwill.core.entries import RequestEnded
from poorwill.core.errors import ErrorCode, RequestFault, TryLater
from poorwill.core.format import counted
from poorwill.core.ports.clock import Clock
from poorwill.core.ports.keys import NO_LIMITS, KeyLimits, KeyRing
from poorwill.core.words import SECOND_US, ModelName

_MINUTE_US = 60 * SECOND_US
_SOON_S = 2
"""When to try again if a place becomes free at a time that nobody knows."""


def key_name(keys: KeyRing, credential: bytes, *, public: bool) -> str:
    """Return the name of the key a request brought, empty if none is configured and it is not known.

    Raises RequestFault(UNAUTHENTICATED), also if the listener is `public` and the last key was
    forgotten while it served. The secret appears in no message.
    """
    name = keys.name_of(credential)
    if public and not keys.required:
        what = "no API key is configured, which this public address needs"
        raise RequestFault(ErrorCode.UNAUTHENTICATED, what)
    if keys.required and name is None:
        how = "an API key is needed: send `Authorization: Bearer KEY` or `x-api-key: KEY`"
        what = "the API key is not known here" if credential else how
        raise RequestFault(ErrorCode.UNAUTHENTICATED, what)
    return name or ""


class _Allowance:
    """What may be used within a minute. Less than nothing is owed."""

    __slots__ = ("_at_us", "_most", "left")

    def __init__(self, most: int, now_us: int) -> None:
        self._most = most
        self.left: float = most
        self._at_us = now_us

    def refill(self, most: int, now_us: int) -> None:
        """Add what has come since; `most` may have changed."""
        self.left += most - self._most + most * (now_us - self._at_us) / _MINUTE_US
        self.left = min(self.left, most)
        self._most, self._at_us = most, now_us

    def headers(self, what: str) -> bytes:
        """Return the limit in the headers that OpenAI's clients read."""
        full_us = round((self._most - self.left) * _MINUTE_US / self._most)
        return b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n" % (
            *(what.encode(), self._most, what.encode(), max(int(self.left), 0), what.encode()),
            _spelt(full_us).encode(),
        )

    def wait_s(self, needed: float) -> int:
        """Return the whole seconds until so much is left."""
        return -(-round((needed - self.left) * _MINUTE_US / self._most) // SECOND_US)


def _spelt(us: int) -> str:
    """Return a duration as OpenAI spells it: `17ms`, `1.5s`, `1m0s`."""
    if us < SECOND_US:
        return f"{-(-us // 1000)}ms"
    minutes, rest_us = divmod(us, _MINUTE_US)
    seconds = f"{round(rest_us / SECOND_US, 1):g}s"
    return f"{minutes}m{seconds}" if minutes else seconds


class _Use:
    """What one key uses now."""

    __slots__ = ("at_once", "held", "requests", "tokens")

    def __init__(self, limits: KeyLimits, now_us: int) -> None:
        self.at_once = 0
        self.held = 0
        self.requests = _Allowance(limits.requests_minute, now_us)
        self.tokens = _Allowance(limits.tokens_minute, now_us)


class KeyLimiter:
    """Counts what the keys of a gateway use. All methods run on the event loop's thread."""

    def __init__(self, *, keys: KeyRing, clock: Clock, at_once: int) -> None:
        self._keys = keys
        self._clock = clock
        self.at_once = at_once
        """The most that a key without a limit of its own may have at once; 0 is without limit."""
        self._uses: dict[str, _Use] = {}

    def may_use(self, key: str, model: ModelName) -> bool:
        """Return whether a key may use a model."""
        models = self._keys.limits(key).models
        return not models or model in models

    def priority(self, key: str) -> int:
        """Return a key's priority among those who wait."""
        return self._keys.limits(key).priority

    def tokens_left(self, key: str) -> float:
        """Return how many tokens a key has left of this minute's; less than nothing is owed."""
        return self._use(key, self._keys.limits(key)).tokens.left

    def admit(self, key: str, model: ModelName) -> bytes | None:
        """Count a request; return the header lines that say what is left, None if nothing is counted.

        A counted request is handed to `over` exactly once. Raises RequestFault(FORBIDDEN) if the key may not
        use the model, TryLater(RATE_LIMITED) if a limit is reached.
        """
        limits = self._keys.limits(key)
        if limits is NO_LIMITS and not self.at_once:
            return None
        if limits.models and model not in limits.models:
            why = f"the key {key} may not use {model}"
            raise RequestFault(ErrorCode.FORBIDDEN, why, hint="it may use " + ", ".join(limits.models))
        use = self._use(key, limits)
        self._check(key, use, limits)
        use.at_once += 1
        use.requests.left -= 1
        return self._headers(use, limits)

    def refused_headers(self, key: str) -> bytes:
        """Return the header lines that tell a refused request what is left."""
        limits = self._keys.limits(key)
        return self._headers(self._use(key, limits), limits)

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """Count a request as held. Raises TryLater(RATE_LIMITED) if as many are as may be."""
        use = self._uses.get(key)
        if use is None:
            yield
            return
        most = self._keys.limits(key).held
        if most and use.held >= most:
            raise _later(key, f"{counted(most, 'request')} held, as many as it may have", _SOON_S)
        use.held += 1
        try:
            yield
        finally:
            use.held -= 1

    def over(self, key: str, row: RequestEnded | None, *, most_in: int, most_out: int) -> None:
        """Take note that a counted request is over: its tokens, or the most that they can be if unknown."""
        use = self._uses[key]
        use.at_once -= 1
        if row is None:
            return
        if row.tokens_in is not None:
            most_in, most_out = row.tokens_in, 0
        use.tokens.left -= most_in + (most_out if row.tokens_out is None else row.tokens_out)

    def _use(self, key: str, limits: KeyLimits) -> _Use:
        now_us = self._clock.now_us()
        use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = _Use(limits, now_us)
        use.requests.refill(limits.requests_minute, now_us)
        use.tokens.refill(limits.tokens_minute, now_us)
        return use

    def _check(self, key: str, use: _Use, limits: KeyLimits) -> None:
        at_once = limits.at_once or self.at_once
        if at_once and use.at_once >= at_once:
            raise _later(
                key, f"{counted(at_once, 'request')} held or in work, as many as it may have", _SOON_S
            )
        if limits.requests_minute and use.requests.left < 1:
            what = f"used its {limits.requests_minute:,} requests a minute"
            raise _later(key, what, use.requests.wait_s(1))
        if limits.tokens_minute and use.tokens.left <= 0:
            what = f"used its {limits.tokens_minute:,} tokens a minute"
            raise _later(key, what, use.tokens.wait_s(1))

    def _headers(self, use: _Use, limits: KeyLimits) -> bytes:
        lines = use.requests.headers("requests") if limits.requests_minute else b""
        return lines + use.tokens.headers("tokens") if limits.tokens_minute else lines


def _later(key: str, has: str, retry_after_s: int) -> TryLater:
    return TryLater(ErrorCode.RATE_LIMITED, f"the key {key} has {has}", retry_after_s=max(retry_after_s, 1))
