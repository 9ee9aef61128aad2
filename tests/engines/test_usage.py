"""Token counts of every dialect, from `usage` alone, wherever the bytes are cut."""

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.ports.answers import AnswerReader, Counts
from poorwill.core.tokens import TokenParts
from poorwill.engines.dialects.answers import answer_reader

EVENTS, JSON = b"text/event-stream; charset=utf-8", b"application/json"


def reader(content_type: bytes, *, hides: bool = False) -> AnswerReader:
    found = answer_reader(content_type, hides=hides)
    assert found is not None
    return found


def scan(content_type: bytes, *pieces: bytes, complete: bool = True) -> Counts:
    answer = reader(content_type)
    assert b"".join([*map(answer.feed, pieces), answer.rest()]) == b"".join(pieces)
    return answer.counts(complete=complete)


def totals(counts: Counts) -> tuple[int | None, int | None]:
    return counts.tokens_in, counts.tokens_out


def events(*documents: object) -> bytes:
    return b"".join(b"data: " + json.dumps(d).encode() + b"\n\n" for d in documents)


def delta(text: str | None, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
DETAILED = USAGE | {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": None}
COMPLETION = {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]}
LAST = {"choices": [], "usage": DETAILED}
STREAM = events(delta("usage"), delta("x", usage=None), LAST) + b"data: [DONE]\n\n"

BODIES = {
    "chat": (JSON, json.dumps(COMPLETION | {"usage": USAGE}).encode()),
    "details inside": (JSON, json.dumps(COMPLETION | {"usage": DETAILED}).encode()),
    "indented": (JSON, json.dumps(COMPLETION | {"usage": USAGE}, indent=2).encode()),
    "usage first": (JSON, json.dumps({"usage": USAGE} | COMPLETION).encode()),
    "stream": (EVENTS, STREAM),
    "stream without an end": (EVENTS, STREAM.removesuffix(b"\n\ndata: [DONE]\n\n")),
    "lines end in CRLF": (EVENTS, STREAM.replace(b"\n", b"\r\n")),
}


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_counts_survive_any_split(name: str, data: st.DataObject) -> None:
    content_type, body = BODIES[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    edges = [0, *cuts, len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges) if a < b]
    assert totals(scan(content_type, *pieces)) == (7, 3)


@pytest.mark.parametrize("name", BODIES)
def test_counts_are_found_byte_by_byte(name: str) -> None:
    content_type, body = BODIES[name]
    assert totals(scan(content_type, *(body[i : i + 1] for i in range(len(body))))) == (7, 3)


DIALECTS: dict[str, tuple[dict[str, object], int | None, int | None, TokenParts]] = {
    "OpenAI chat": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10, "image_tokens": 5},
            "completion_tokens_details": {
                "reasoning_tokens": 20,
                "audio_tokens": 8,
                "accepted_prediction_tokens": 0,
            },
        },
        100,
        50,
        TokenParts(cache_read=60, audio_in=10, image_in=5, reasoning=20, audio_out=8),
    ),
    "OpenAI responses": (
        {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 60},
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 20},
            "total_tokens": 150,
        },
        100,
        50,
        TokenParts(cache_read=60, reasoning=20),
    ),
    "OpenAI images": (
        {
            "input_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens": 500,
            "total_tokens": 550,
        },
        50,
        500,
        TokenParts(image_in=40),
    ),
    "OpenAI transcription": (
        {
            "type": "tokens",
            "input_tokens": 14,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
            "output_tokens": 45,
            "total_tokens": 59,
        },
        14,
        45,
        TokenParts(audio_in=14),
    ),
    "OpenAI realtime, cached audio": (
        {
            "input_tokens": 100,
            "output_tokens": 30,
            "total_tokens": 130,
            "input_token_details": {
                "audio_tokens": 50,
                "cached_tokens": 60,
                "cached_tokens_details": {"text_tokens": 20, "audio_tokens": 40},
            },
            "output_token_details": {"text_tokens": 10, "audio_tokens": 20},
        },
        100,
        30,
        TokenParts(cache_read=60, audio_in=10, audio_out=20),
    ),
    "Anthropic": (
        {
            "input_tokens": 12,
            "cache_creation_input_tokens": 20_000,
            "cache_read_input_tokens": 100_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 20_000, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 50,
            "service_tier": "standard",
            "server_tool_use": {"web_search_requests": 1},
        },
        120_012,
        50,
        TokenParts(cache_read=100_000, cache_write=20_000),
    ),
    "Anthropic, cached for an hour": (
        {
            "input_tokens": 3,
            "cache_creation_input_tokens": 500,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 400},
            "output_tokens": 5,
        },
        503,
        5,
        TokenParts(cache_write=100, cache_write_1h=400),
    ),
    "Anthropic, by time alone": (
        {
            "input_tokens": 3,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 400},
            "output_tokens": 5,
        },
        503,
        5,
        TokenParts(cache_write=100, cache_write_1h=400),
    ),
    "Anthropic's counts in OpenAI's shape": (
        USAGE | {"cache_read_input_tokens": 4, "cache_creation_input_tokens": 1},
        7,
        3,
        TokenParts(cache_read=4, cache_write=1),
    ),
    "DeepSeek": (
        USAGE | {"prompt_cache_hit_tokens": 5, "prompt_cache_miss_tokens": 2},
        7,
        3,
        TokenParts(cache_read=5),
    ),
    "reasoning within the total alone": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 115,
            "completion_tokens_details": {"reasoning_tokens": 100},
        },
        10,
        105,
        TokenParts(reasoning=100),
    ),
    "floats": (
        {"prompt_tokens": 7.0, "completion_tokens": 2.5, "prompt_time": 0.003, "total_time": 1e-3},
        7,
        3,
        TokenParts(),
    ),
    "embeddings": ({"prompt_tokens": 4, "total_tokens": 4}, 4, None, TokenParts()),
    "a reranker": ({"total_tokens": 9}, 9, None, TokenParts()),
    "a duration": ({"type": "duration", "seconds": 9}, None, None, TokenParts()),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect(name: str) -> None:
    usage, tokens_in, tokens_out, parts = DIALECTS[name]
    expected = Counts(tokens_in=tokens_in, tokens_out=tokens_out, parts=parts)
    assert scan(JSON, json.dumps(COMPLETION | {"usage": usage}).encode()) == expected
    assert scan(EVENTS, events({"choices": [], "usage": usage})) == expected
    done = {"type": "response.completed", "response": {"output": [], "usage": usage}}
    assert scan(EVENTS, events(done)) == expected


def test_groq_nests_the_usage_of_a_stream() -> None:
    assert totals(scan(EVENTS, events(delta("", x_groq={"id": "r", "usage": USAGE})))) == (7, 3)


def test_the_last_count_wins() -> None:
    start = {"input_tokens": 9, "cache_read_input_tokens": 100, "output_tokens": 1}
    body = events(
        {"type": "message_start", "message": {"usage": start}},
        {"type": "message_delta", "usage": {"output_tokens": 4, "cache_read_input_tokens": None}},
    )
    found = Counts(tokens_in=109, tokens_out=4, parts=TokenParts(cache_read=100))
    assert scan(EVENTS, body) == found


@pytest.mark.parametrize(
    "body",
    [
        b'{"content": "usage"}',
        b'{"content": "\\"usage\\": {\\"prompt_tokens\\": 5}"}',
        b'{"usage": null}',
        b'{"usage": "free"}',
        b'{"usage": [{"prompt_tokens": 5}]}',
        b'{"usage": {"prompt_tokens": "many"}}',
        b'{"usage": {"prompt_tokens": -7, "completion_tokens": 3}}',
        b'{"usage": {"prompt_tokens": 92233720368547758070, "completion_tokens": 3}}',
        b'{"usage": {"prompt_tokens": 1e300}}',
        b'{"tools": [{"usage": {"prompt_tokens": 5, "completion_tokens": 3}}]}',
        b'{"usage": {"prompt_tokens": 5',
        b'{"message": ' * 5000,
        b"",
    ],
)
def test_nothing_else_is_taken_for_a_count(body: bytes) -> None:
    assert totals(scan(JSON, body)) == (None, None)
    streamed = scan(EVENTS, b"data: " + body + b"\n\n")
    assert streamed.tokens_in is None and (streamed.counted or streamed.tokens_out is None)


@pytest.mark.parametrize("first", [True, False])
def test_usage_of_a_large_answer(*, first: bool) -> None:
    data = {"data": [{"embedding": [0.5] * 200_000}]}
    whole = {"usage": DETAILED} | data if first else data | {"usage": DETAILED}
    body = json.dumps(whole).encode()
    pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    assert scan(JSON, *pieces) == Counts(tokens_in=7, tokens_out=3, parts=TokenParts(cache_read=4))


@pytest.mark.parametrize("content_type", [JSON, EVENTS])
@pytest.mark.parametrize("hides", [True, False])
def test_an_endless_answer_takes_little_memory(content_type: bytes, *, hides: bool) -> None:
    answer = reader(content_type, hides=hides)
    piece = b"1" * 10_000
    tracemalloc.start()
    passed = len(answer.feed(b'data: {"usage": {"a": '))
    for _ in range(1000):
        passed += len(answer.feed(piece))
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 700_000
    assert passed + len(answer.rest()) == 1000 * len(piece) + 22


def test_speech_has_no_counts() -> None:
    assert answer_reader(b"audio/mpeg", hides=False) is None


# -- what was counted, not reported


def test_pieces_are_counted_if_nothing_is_reported() -> None:
    body = events(delta(None), delta("a"), delta("b"), delta(""), {"choices": [{"text": "c"}]})
    assert scan(EVENTS, body + b"data: [DONE]\n\n") == Counts(tokens_out=3, counted=True)


def test_an_answer_without_text_has_no_count() -> None:
    assert scan(EVENTS, events(delta(None), delta(""))) == Counts()


def test_timings_of_llamacpp_are_a_count() -> None:
    last = delta(None, timings={"cache_n": 10, "prompt_n": 5, "predicted_n": 3, "predicted_ms": 12.5})
    expected = Counts(tokens_in=15, tokens_out=3, parts=TokenParts(cache_read=10), counted=True)
    assert scan(EVENTS, events(delta("a"), last)) == expected


def test_usage_counts_more_than_timings() -> None:
    last = {"choices": [], "usage": USAGE, "timings": {"prompt_n": 1, "predicted_n": 1}}
    assert scan(EVENTS, events(delta("a"), last)) == Counts(tokens_in=7, tokens_out=3)


def test_a_stream_broken_off_counts_what_came() -> None:
    usage = {"input_tokens": 9, "output_tokens": 1}
    texts = [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}] * 5
    body = events({"type": "message_start", "message": {"usage": usage}}, *texts)
    expected = Counts(tokens_in=9, tokens_out=5, counted=True)
    assert scan(EVENTS, body, complete=False) == expected
    assert scan(EVENTS, body) == Counts(tokens_in=9, tokens_out=1)


# -- usage that the client did not ask for


@given(data=st.data())
def test_the_chunk_of_usage_is_taken_out(data: st.DataObject) -> None:
    ends = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    body = STREAM.replace(b"\n", ends)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    answer = reader(EVENTS, hides=True)
    edges = [0, *cuts, len(body)]
    passed = b"".join(answer.feed(body[a:b]) for a, b in itertools.pairwise(edges)) + answer.rest()
    without = events(delta("usage"), delta("x", usage=None)) + b"data: [DONE]\n\n"
    assert passed == without.replace(b"\n", ends)
    assert totals(answer.counts(complete=True)) == (7, 3)


@given(
    body=st.binary(max_size=300) | st.text("data: {}\n\r:", max_size=300).map(str.encode),
    cut=st.integers(0, 300),
)
def test_all_else_passes_byte_for_byte(body: bytes, cut: int) -> None:
    answer = reader(EVENTS, hides=True)
    assert answer.feed(body[:cut]) + answer.feed(body[cut:]) + answer.rest() == body


def test_an_event_is_passed_on_when_it_is_complete() -> None:
    answer = reader(EVENTS, hides=True)
    body = events(delta("a"))
    assert answer.feed(body[:20]) == b""
    assert answer.feed(body[20:]) == body
