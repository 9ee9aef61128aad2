"""When an engine is suspected to answer nobody."""

from poorwill.core.machine.silence import ANSWERING


def test_one_slow_request_proves_nothing() -> None:
    assert not ANSWERING.timed_out(sent=0, now=600).suspicious


def test_one_batch_of_long_prompts_proves_nothing() -> None:
    silence = ANSWERING
    for sent in range(8):
        silence = silence.timed_out(sent=sent, now=600 + sent)
    assert silence.timeouts == 8 and not silence.suspicious


def test_timeouts_in_a_row_are_suspicious() -> None:
    silence = ANSWERING.timed_out(sent=0, now=10).timed_out(sent=11, now=21)
    assert not silence.suspicious
    assert silence.timed_out(sent=22, now=32).suspicious
