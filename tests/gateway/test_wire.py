"""The one error table, the two dialects, and what a response may still say in each state."""

import json

import pytest

from poorwill.core.errors import ErrorCode, PoorwillError, TryLater
from poorwill.gateway import wire
from poorwill.gateway.downstream.response import Ending, Response, Sent
from poorwill.gateway.wire import Dialect

# design.md section 6, and what the codes outside it mean over HTTP.
STATUS = {
    400: {"invalid_request"},
    401: {"unauthenticated"},
    403: {"forbidden"},
    409: {"in_use"},
    413: {"payload_too_large"},
    415: {"unsupported_media"},
    404: {"model_not_found", "route_not_found"},
    405: {"method_not_allowed"},
    429: {"hold_queue_full", "rate_limited", "spend_limit"},
    499: {"client_gone"},
    500: {"config_invalid", "internal"},
    502: {"upstream_connect", "upstream_protocol", "replica_lost"},
    503: {"wake_failed", "no_capacity", "draining", "overloaded", "ledger_unavailable", "not_running"},
    504: {"wake_timeout", "upstream_timeout"},
}


def test_every_error_has_its_status() -> None:
    assert {code.value for codes in STATUS.values() for code in map(ErrorCode, codes)} == {
        code.value for code in ErrorCode
    }
    for status, codes in STATUS.items():
        for code in codes:
            assert wire.http_status(ErrorCode(code)) == status


@pytest.mark.parametrize("code", ErrorCode)
def test_errors_in_both_dialects(code: ErrorCode) -> None:
    error = PoorwillError(code, "what", hint="how to fix it")
    ours = wire.error_document(error, dialect=Dialect.OPENAI, request_id="r")["error"]
    assert isinstance(ours, dict)
    assert set(ours) == {"message", "type", "code", "param", "source"}
    assert (ours["code"], ours["source"]) == (code.value, "poorwill")
    assert "how to fix it" in str(ours["message"])
    theirs = wire.error_document(error, dialect=Dialect.ANTHROPIC, request_id="r")
    assert (theirs["type"], theirs["request_id"]) == ("error", "r")


@pytest.mark.parametrize("status", [100, 102, 200, 404, 499, 504, 599])
def test_every_status_line_can_be_parsed(status: int) -> None:
    assert wire.status_line(status).startswith(b"HTTP/1.1 %d " % status)
    assert wire.status_line(status).endswith(b"\r\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no"}}', "no"),
        (b'{"error": "text"}', 'the engine answered 500: {"error": "text"}'),
        (b"<html>", "the engine answered 500: <html>"),
        (b"", "the engine answered 500: "),
        (b"\xff", "the engine answered 500: \ufffd"),
    ],
)
def test_an_engine_error_keeps_its_words(body: bytes, message: str) -> None:
    document = wire.engine_error_document(500, body, dialect=Dialect.OPENAI, request_id="r")
    error = document["error"]
    assert isinstance(error, dict)
    assert error["message"].strip() == message.strip()
    assert (error["source"], error["status"]) == ("engine", 500)


class Client:
    """Collects what a response writes."""

    def __init__(self, *, http11: bool = True, dialect: Dialect = Dialect.OPENAI) -> None:
        self.received = b""
        self.response = Response(
            write=self._take,
            request_id=b"req-1",
            http11=http11,
            ending=Ending.KEEP,
            bodyless=False,
            dialect=dialect,
        )

    def _take(self, data: bytes) -> None:
        self.received += data


TIMEOUT = TryLater(ErrorCode.WAKE_TIMEOUT, "too late", retry_after_s=3)


def test_nothing_sent_keeps_the_connection() -> None:
    client = Client()
    client.response.interim([(b"x-poorwill-left", b"3")])
    client.response.fail(TIMEOUT, retry_after_s=3)
    assert client.received.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 504 Gateway Timeout\r\n" in client.received
    assert b"retry-after: 3\r\n" in client.received
    assert b"x-request-id: req-1\r\n" in client.received
    assert client.response.ending is Ending.KEEP


def test_error_events_follow_whole_events() -> None:
    for tail, ending in ((b"data: 1\n\n", Ending.CLOSE), (b"data: 1", Ending.CUT)):
        client = Client()
        client.response.relay_head(200, [], length=None, events=True)
        client.response.body([tail])
        client.response.fail(TIMEOUT)
        assert client.response.ending is ending
        assert (b"wake_timeout" in client.received) is (ending is Ending.CLOSE)
        assert client.received.endswith(wire.LAST_CHUNK) is (ending is Ending.CLOSE)


def test_late_json_failures_are_cut() -> None:
    client = Client()
    client.response.commit_spaces()
    client.response.filler(b" ")
    client.response.fail(TIMEOUT)
    assert client.response.ending is Ending.CUT
    assert not client.received.endswith(wire.LAST_CHUNK)
    assert client.response.sent is Sent.ALL


def test_a_relayed_json_body_is_cut() -> None:
    client = Client()
    client.response.relay_head(200, [], length=10, events=False)
    client.response.body([b"half\n\n"])
    client.response.fail(TIMEOUT)
    assert client.response.ending is Ending.CUT
    assert client.received.endswith(b"half\n\n")


def test_http_1_0_streams_end_by_close() -> None:
    client = Client(http11=False)
    client.response.commit_events()
    client.response.body([b"data: 1\n\n"])
    client.response.end()
    assert client.received.endswith(b"\r\n\r\ndata: 1\n\n")
    assert client.response.ending is Ending.CLOSE


def test_anthropic_request_ids() -> None:
    client = Client(dialect=Dialect.ANTHROPIC)
    client.response.fail(TIMEOUT)
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert b"\r\nrequest-id: req-1" in head and b"\r\nx-request-id: req-1" in head
    assert json.loads(body)["request_id"] == "req-1"
