"""Prompts of models whose `capture_until` lies ahead: in memory alone, a few of each, forgotten at that time.

Nothing of them reaches the disk, the ledger or the log. The log names who read which.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.ports.clock import Clock
from poorwill.core.settings import FleetSettings
from poorwill.core.words import SECOND_US, ModelName
from poorwill.telemetry.dashboard.documents import CaptureNow, PromptDocument

MOST_PROMPTS, MOST_BYTES = 100, 64 * 1024
"""Of each model, and of each prompt: more of it is cut off."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    request: str
    at_us: int
    body: bytes
    size_bytes: int


class Captures:
    """The prompts of a served fleet that are kept. It follows the configuration."""

    def __init__(self, *, settings: Callable[[], FleetSettings], clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._of: FleetSettings | None = None
        self._until: Mapping[ModelName, int] = {}
        self._kept: dict[ModelName, deque[_Prompt]] = {}

    def take(self, model: ModelName, request: str, body: bytes) -> None:
        """Keep what a request asks, if its model is captured. On the warm path."""
        if self._settings() is not self._of:
            self._follow()
        if body and model in self._until:
            self._keep(model, request, body)

    def now(self) -> list[CaptureNow]:
        """Return which models are captured."""
        self._follow()
        return [
            CaptureNow(
                model=model,
                until_us=until_us,
                prompts=len(self._kept.get(model, ())),
                since_us=min((one.at_us for one in self._kept.get(model, ())), default=None),
            )
            for model, until_us in self._until.items()
        ]

    def prompt(self, request: str) -> PromptDocument:
        """Return what a request asked. Raises RequestFault if that is not kept, or no longer."""
        self._follow()
        for model, kept in self._kept.items():
            for one in kept:
                if one.request == request:
                    text = one.body.decode("utf-8", "replace")
                    return PromptDocument(
                        request=request, model=model, at_us=one.at_us, size_bytes=one.size_bytes, text=text
                    )
        hint = f"the last {MOST_PROMPTS} of each model are, while its capture_until lies ahead"
        raise RequestFault(ErrorCode.INVALID_REQUEST, "the prompt of that request is not kept", hint=hint)

    def _keep(self, model: ModelName, request: str, body: bytes) -> None:
        now_us, kept = self._clock.now_us(), self._kept.get(model)
        if now_us >= self._until[model]:
            self._follow()
            return
        if kept is None:
            kept = self._kept[model] = deque(maxlen=MOST_PROMPTS)
            left_s = (self._until[model] - now_us) / SECOND_US
            asyncio.get_running_loop().call_later(left_s, self._follow)
        kept.append(_Prompt(request, now_us, bytes(body[:MOST_BYTES]), len(body)))

    def _follow(self) -> None:
        """Take up the configuration in force, and forget what is no longer to be kept."""
        now_us, self._of = self._clock.now_us(), self._settings()
        ends = {model.name: model.capture_until_us or 0 for model in self._of.models}
        self._until = {model: until_us for model, until_us in ends.items() if until_us > now_us}
        self._kept = {model: kept for model, kept in self._kept.items() if model in self._until}
