"""When an engine is suspected to answer nobody."""

from poorwill.policies.requests.silence import ANSWERING, QUIET_S, Silence, Suspicion


def test_one_slow_request_proves_nothing() -> None:
    assert ANSWERING.timed_out(sent=0, now=600).suspicion(ANSWERING) is None


def test_one_batch_of_long_prompts_proves_nothing() -> None:
    silence = ANSWERING
    for sent in range(8):
        silence = silence.timed_out(sent=sent, now=600 + sent)
    assert silence.timeouts == 8 and silence.suspicion(ANSWERING) is None


def test_timeouts_in_a_row_are_suspicious() -> None:
    two = ANSWERING.timed_out(sent=0, now=10).timed_out(sent=11, now=21)
    three = two.timed_out(sent=22, now=32)
    assert two.suspicion(ANSWERING) is None
    assert three.suspicion(two) is Suspicion.TIMEOUTS
    assert three.suspicion(three) is None, "told once"


def test_quiet_is_told_once_a_stretch() -> None:
    told, silence = [], Silence()
    for now in range(1, 101):
        before, silence = silence, silence.looked_at(owing_since=5, now=now)
        if silence.suspicion(before) is Suspicion.QUIET:
            told.append(now)
    assert told == [5 + n * QUIET_S for n in (1, 2, 3)]
