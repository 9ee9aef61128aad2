"""A hosted API as the gateway speaks to it: which requests it takes, what is sent there, what comes back.

Pure: from a request's head and body to the bytes that are sent, and from an answer's headers to those that
reach the client. Both directions use an allow-list: a client's key, cookies and address stay here, and the
provider's cookies, limits and security policies stay there.
"""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from poorwill.core.token_prices import TokenPrices
from poorwill.core.words import ModelName

Headers = list[tuple[bytes, bytes]]
PricesAt = Callable[[int, int], TokenPrices]
"""What tokens cost at an instant (microseconds) in a request with so many of them in."""

FULL_CONTEXT = 1_048_576
"""Tokens in that are reserved for a body that refers to what is not in it: no API takes more."""

_REFERS = re.compile(
    rb'"(?:image_url|input_image|file_id|input_file|previous_response_id|conversation|prompt_id|tools)"'
    rb'|"type"\s*:\s*"(?:url|file|document)"'
)
"""Images by address, files, earlier answers, the provider's own tools: no byte here bounds their tokens."""

ANTHROPIC = "anthropic"
"""The provider that speaks its own dialect, at `/v1/messages`."""

_TELL_USAGE = frozenset(
    "openai azure groq together fireworks deepseek openrouter x-ai cerebras deepinfra novita".split()
)
_PREFIX = "/v1"
_OPENAI_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"})
_ANTHROPIC_PATHS = frozenset({"/v1/messages", "/v1/messages/count_tokens"})

_MAY_LEAVE = frozenset(
    {
        b"accept",
        b"idempotency-key",
        b"openai-beta",
        b"anthropic-version",
        b"anthropic-beta",
    }
)
_MAY_COME_BACK = frozenset({b"content-type", b"content-encoding", b"content-language", b"cache-control"})

STAY_HERE = b"no-bridge"
"""A client keeps a request here with `Prefer: no-bridge` (RFC 7240): it is held, however long that takes."""

BRIDGE_HEADER = b"x-poorwill-bridge"
"""Tells a client that a hosted API answered, and which: `PROVIDER/MODEL`."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=10**7)]


class _OutputLimits(msgspec.Struct):
    """How a request bounds its answer, in every dialect; anything else about it is not looked at."""

    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    max_output_tokens: _Count | None = None
    n: _Count = 1
    best_of: _Count = 1


_output_limits = msgspec.json.Decoder(_OutputLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedApi:
    """The hosted API of one model. `key` is the secret itself: it appears in no `repr` and no message."""

    serves: ModelName
    name: str
    """PROVIDER/MODEL, as in `fleet.toml`."""
    provider: str
    model: str
    url: str
    key: str = field(repr=False)
    at_once: bool
    """Whether it gets every request that finds the model not ready; else only those whose wake failed."""
    prices: PricesAt
    max_output_tokens: int
    """The most that one answer can have if the request sets no limit of its own."""
    tls: ssl.SSLContext | None
    """For an `https` URL: verifies by the system's store."""

    @property
    def host(self) -> str:
        """Where it is."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Its port."""
        return urlsplit(self.url).port or (443 if self.tls else 80)

    @property
    def tells_usage(self) -> bool:
        """Whether it is known to take `stream_options`: some refuse what they do not know."""
        return self.provider in _TELL_USAGE

    def takes(self, method: bytes, path: str, prefer: bytes) -> bool:
        """Return whether it has what a request asks for, and the request may go there."""
        paths = _ANTHROPIC_PATHS if self.provider == ANTHROPIC else _OPENAI_PATHS
        if prefer and STAY_HERE in {word.strip() for word in prefer.split(b",")}:
            return False
        return method == b"POST" and path in paths

    def request(self, path: str, forward: bytes, body: bytes) -> bytes:
        """Return the request to send, with a body for this API. Its query stays here: none is known."""
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/") + path.removeprefix(_PREFIX)
        credential = (
            f"x-api-key: {self.key}" if self.provider == ANTHROPIC else f"authorization: Bearer {self.key}"
        )
        return (
            f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n{credential}\r\n"
            # Token counts and heartbeats need the identity coding.
            "accept-encoding: identity\r\ncontent-type: application/json\r\nuser-agent: poorwill\r\n"
            f"content-length: {len(body)}\r\n"
        ).encode() + b"%b\r\n%b" % (_leaving(forward), body)

    def most_nusd(self, at_us: int, body: bytes) -> int:
        """Return the most that the API may charge for a request: a token has a byte at least."""
        tokens_in = len(body) + (FULL_CONTEXT if _REFERS.search(body) else 0)
        return self.prices(at_us, tokens_in).most(tokens_in, self._most_tokens_out(body))

    def _most_tokens_out(self, body: bytes) -> int:
        try:
            asked = _output_limits.decode(body)
        except msgspec.MsgspecError:
            return self.max_output_tokens
        limits = (asked.max_completion_tokens, asked.max_output_tokens, asked.max_tokens)
        each = next((limit for limit in limits if limit is not None), self.max_output_tokens)
        return each * max(asked.n, asked.best_of)

    def answer_headers(self, headers: Headers) -> Headers:
        """Return the headers of an answer that are for the client, and one that says who answered."""
        kept = [pair for pair in headers if pair[0].lower() in _MAY_COME_BACK]
        return [*kept, (BRIDGE_HEADER, re.sub(rb"[^!-~]", b"?", self.name.encode()))]


def _leaving(forward: bytes) -> bytes:
    lines = forward.split(b"\r\n")
    return b"".join(b"%b\r\n" % line for line in lines if line.partition(b":")[0].lower() in _MAY_LEAVE)
