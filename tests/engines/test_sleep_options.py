"""Which engines can sleep as configured: asked before a ladder is promised, not at the first park."""

import pytest

from poorwill.core.settings import EngineSettings
from poorwill.engines.kinds import ENGINE_KINDS, cannot_sleep
from poorwill.engines.sleeping import engine_sleeps


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("toy", {}, "the engine toy has no sleep of its own"),
        ("transformers", {}, "has no sleep of its own"),
        ("command", {}, "has no sleep of its own"),
        ("vllm", {}, "sleeps only if an option says so"),
        ("vllm", {"sleep": True}, ""),
        ("vllm", {"sleep": 2}, ""),
        ("sglang", {"sleep": False}, "sleeps only if an option says so"),
        ("sglang", {"sleep": True}, ""),
        ("llama.cpp", {}, "sleeps only if an option says so"),
        ("llama.cpp", {"sleep_idle_seconds": 2}, ""),
        ("ollama", {}, ""),
    ],
)
def test_an_engine_that_cannot_sleep_says_why(kind: str, options: dict[str, object], why: str):
    told = cannot_sleep(EngineSettings(kind=kind, options=options))  # type: ignore[arg-type]
    assert (told is None) == (why == "")
    assert told is None or why in told[0]
    if told is not None and "told to" in told[0]:
        assert told[1].startswith("options = { sleep")


def test_every_engine_with_a_sleep_is_named():
    assert {kind for kind, made in ENGINE_KINDS.items() if made.sleeps_with is not None} == {
        sleep.partition("-")[0] for sleep in engine_sleeps()
    }
