"""Bytes of unfinished and unanswered requests in memory, over all connections and by key.

Without one bound over all connections each of them may hold a body of the largest size: sixty bodies held
2 GB. Small requests are not counted: the limit of connections bounds those.
"""

from poorwill.core.errors import ErrorCode, TryLater

UNCOUNTED_BYTES = 16 * 1024
"""A request of at most this size is not counted."""
_RETRY_AFTER_S = 5


class RequestMemory:
    """Counts bytes. One key may hold half of the limit, so that it cannot shut out the others."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._total = 0
        self._by_key: dict[str, int] = {}

    def take(self, key: str, size: int) -> None:
        """Count bytes of a request of this key, empty if it has none.

        Raises TryLater if that passes the limit (OVERLOADED) or the key's share of it (RATE_LIMITED).
        """
        of_key = self._by_key.get(key, 0) + size
        if self._total + size > self._limit:
            raise TryLater(
                ErrorCode.OVERLOADED,
                f"poorwill is receiving all the requests that {self._limit} bytes have room for",
                retry_after_s=_RETRY_AFTER_S,
            )
        if key and of_key > self._limit // 2:
            raise TryLater(
                ErrorCode.RATE_LIMITED,
                f"the requests of this key that are in work have {self._limit // 2} bytes already",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._total += size
        self._by_key[key] = of_key

    def give_back(self, key: str, size: int) -> None:
        """Stop counting bytes that `take` counted."""
        self._total -= size
        left = self._by_key[key] - size
        if left:
            self._by_key[key] = left
        else:
            del self._by_key[key]
