"""What is fuzzed: a check takes one input and raises whatever no reader of it may raise.

Each has an oracle where one exists: tomllib, json, h11; elsewhere the law is that what comes out is sane.
"""

import asyncio
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h11
from tests.gateway.site import post, running_site
from tests.gateway.test_edge_against_h11 import compare, ours

from poorwill.bill.invoices.reading import read_invoice
from poorwill.config.load import load_fleet
from poorwill.core.errors import OperatorFault, PoorwillError, RequestFault
from poorwill.engines.dialects.answers import answer_reader
from poorwill.engines.dialects.bodies import asking_usage, form_spans, read_fields, read_form, renamed
from poorwill.engines.dialects.llamacpp import read_llamacpp
from poorwill.engines.dialects.log_facts import Dialect
from poorwill.engines.dialects.others import read_any, read_ollama, read_transformers
from poorwill.engines.dialects.sglang import read_sglang
from poorwill.engines.dialects.vllm import read_vllm
from poorwill.engines.weights.gguf_header import read_gguf_header
from poorwill.hosts.files.traces.readers import read_trace

from .in_memory import Gateway

Check = Callable[[bytes], None]
CUT = re.compile(rb'data: \{"error":\{[^\n]*"source":"poorwill"\}\}\n\n\Z')
"""The event with which a stream ends whose engine failed."""
ANSWER_S = 30.0
"""Nobody waits longer for an answer from a gateway without an engine that thinks."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One reader of what others write."""

    check: Callable[[Path], AbstractContextManager[Check]]
    """Makes the check, in a scratch directory."""
    words: Sequence[bytes]


def in_file(read: Callable[[Path], None]) -> Callable[[Path], AbstractContextManager[Check]]:
    """A check whose input is a file."""

    @contextmanager
    def made(scratch: Path) -> Iterator[Check]:
        path = scratch / "input"

        def check(data: bytes) -> None:
            path.write_bytes(data)
            read(path)

        yield check

    return made


def of_bytes(check: Check) -> Callable[[Path], AbstractContextManager[Check]]:
    @contextmanager
    def made(scratch: Path) -> Iterator[Check]:
        yield check

    return made


def fleet_file(path: Path) -> None:
    """What tomllib refuses is refused, and every problem has words."""
    try:
        settings = load_fleet(str(path), {}, machine=False)
    except OperatorFault as fault:
        assert str(fault)
        return
    tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    assert settings.models is not None


def gguf_file(path: Path) -> None:
    try:
        header = read_gguf_header(path)
    except OperatorFault as fault:
        assert fault.message
        return
    assert header.parameters >= 0 and header.context >= 0 and header.file_bytes == path.stat().st_size


def trace_file(path: Path) -> None:
    try:
        trace = read_trace(str(path)).trace
    except PoorwillError as error:
        assert str(error)
        return
    arrivals = trace.arrival_us.tolist()
    assert arrivals == sorted(arrivals) and (not arrivals or arrivals[0] >= 0)
    assert min(trace.prompt_tokens.tolist(), default=0) >= -1
    assert min(trace.output_tokens.tolist(), default=0) >= -1


def invoice(data: bytes) -> None:
    try:
        charges = read_invoice(data.decode("utf-8", "replace"), source="invoice")
    except OperatorFault as fault:
        assert str(fault)
        return
    assert all(charge.from_us <= charge.to_us for charge in charges)


DIALECTS: Sequence[Dialect] = (
    *(read_llamacpp, read_vllm, read_sglang, read_ollama, read_transformers, read_any),
)


def logs(data: bytes) -> None:
    for line in data.decode("utf-8", "replace").split("\n"):
        for dialect in DIALECTS:
            for fact in dialect(line):
                for value in (fact.took_us, fact.boot_us, fact.since_us):
                    assert value is None or 0 <= value < 2**63, (dialect, line, fact)


def body(data: bytes) -> None:
    """json reads the same model and stream from a body, or we refuse it."""
    try:
        model, stream = read_fields(data, b"application/json")
    except RequestFault as fault:
        assert fault.message
        return
    theirs = _read(data)
    assert model == (theirs.get("model") or ""), (model, theirs)
    assert stream is (theirs.get("stream") is True), (stream, theirs)
    named = _read(renamed(data, "other"))
    assert named == ({**theirs, "model": "other"} if "model" in theirs else theirs), named
    if stream:
        asking = _read(asking_usage(data))
        assert {**asking, "stream_options": 0} == {**theirs, "stream_options": 0}, asking


def _read(data: bytes) -> dict[str, object]:
    """Read a body as engines do, but for what is no UTF-8 in a value that we do not look at."""
    value = json.loads(data.decode("utf-8", "surrogateescape"))
    assert isinstance(value, dict), value
    return value


def form(data: bytes) -> None:
    for content_type in (b"multipart/form-data; boundary=b", b'multipart/form-data; boundary="b b"'):
        try:
            spans = form_spans(data, content_type)
            model, _ = read_form(data, spans)
        except RequestFault as fault:
            assert fault.message
            continue
        for begin, end in spans.values():
            assert 0 <= begin <= end <= len(data)
        assert model.encode() in data


def answers(data: bytes) -> None:
    """However an answer is split, it reads the same; nothing is lost unless it is to be hidden."""
    for kind in (b"text/event-stream", b"application/x-ndjson", b"application/json"):
        counts = []
        for size in (len(data) or 1, 7):
            reader = answer_reader(kind, hides=False)
            assert reader is not None
            passed = b"".join(reader.feed(data[at : at + size]) for at in range(0, len(data), size))
            assert passed == data
            counts.append(reader.counts(complete=True))
        assert counts[0] == counts[1], (kind, counts)
        for number in (counts[0].tokens_in, counts[0].tokens_out):
            assert number is None or (math.isfinite(number) and 0 <= number < 2**63), counts


def edge(data: bytes) -> None:
    """The edge and h11 see the same requests. What follows a request for a tunnel is the tunnel's."""
    if b"websocket" in data.lower():
        ours([data])
        return
    compare(data, [len(data) // 3, len(data) // 2])


async def _asked(port: int, data: bytes, *, ends: bool) -> bytes:
    """Return all that comes back. `ends`: the request may be unfinished, and nothing follows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if ends:
            writer.write_eof()
        async with asyncio.timeout(ANSWER_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@contextmanager
def engine(scratch: Path) -> Iterator[Check]:
    """Whatever an engine sends, a client gets what h11 reads from it, or an error; never two answers."""
    ask = post({"model": "m1", "messages": []}, headers=["Connection: close"])
    with asyncio.Runner() as runner:
        gateway = Gateway()

        def check(data: bytes) -> None:
            cuts = len(data) // 3, len(data) // 2
            gateway.engine.reads = list(filter(None, (data[: cuts[0]], data[slice(*cuts)], data[cuts[1] :])))
            got = runner.get_loop().run_until_complete(asyncio.wait_for(gateway.ask(ask), ANSWER_S))
            assert not gateway.log.errors(), gateway.log.errors()
            assert not gateway.activator.out and not gateway.context.connections, "something is held on to"
            status, text, whole = _read_by_h11(got)
            assert status, got
            their_status, their_text, their_whole = _read_by_h11(data)
            if status >= 500 or not whole or not their_status:
                return  # h11 refuses heads whose letters do not matter: we write another
            if cut := CUT.search(text):  # we are stricter, also after what is a client's already
                text, their_text = text[: cut.start()], their_text[: cut.start()]
            assert their_whole or cut, (got, data)
            assert (status, text) == (their_status, their_text), (got, data)

        yield check


def _read_by_h11(data: bytes) -> tuple[int, bytes, bool]:
    """Return status and body of the final response, and whether it ended cleanly."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    status, text = 0, b""
    while True:
        try:
            event = client.next_event()
        except h11.RemoteProtocolError:
            return status, text, False
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            text += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, text, True
        elif not isinstance(event, h11.InformationalResponse):
            return status, text, False


@contextmanager
def admin(scratch: Path) -> Iterator[Check]:
    """The admin listener answers, and never with a defect."""
    with asyncio.Runner() as runner:
        served = running_site()
        site = runner.run(served.__aenter__())
        port = int(site.admin.rpartition(":")[2])

        def check(data: bytes) -> None:
            if data.lstrip().startswith(b"GET /events"):
                return  # a stream without end
            got = runner.run(_asked(port, data, ends=True))
            assert b"HTTP/1.1 500" not in got, got
            assert not site.log.errors(), site.log.errors()

        yield check
        runner.run(served.__aexit__(None, None, None))


TARGETS: Mapping[str, Target] = {
    "fleet": Target(
        check=in_file(fleet_file),
        words=(
            b"[models.x]\n",
            b"[[rates]]\n",
            b'""',
            b"'''",
            b"inf",
            b"1979-05-27",
            b"{}",
            b"[",
            b"policy = ",
            b"\\u0000",
        ),
    ),
    "gguf": Target(
        check=in_file(gguf_file),
        words=(b"GGUF", b"general.architecture", b"split.count", b"\x09\x00\x00\x00", b"\x08\x00\x00\x00"),
    ),
    "trace": Target(
        check=in_file(trace_file),
        words=(
            b"arrival_s",
            b"timestamp",
            b"2023-11-16 18:17:03.97",
            b'{"created": 1}\n',
            b"\x1f\x8b",
            b"nan",
            b"+02:00",
        ),
    ),
    "invoice": Target(
        check=of_bytes(invoice),
        words=(
            b"ResourceId",
            b"BilledCost",
            b"2026-01-01T00:00:00Z",
            b"Hours",
            b"USD",
            b"-0.001",
            b"9999-12-31",
        ),
    ),
    "logs": Target(
        check=of_bytes(logs),
        words=(
            b"poorwill-engine ready boot_us=",
            b"Loading weights took ",
            b" seconds",
            b"\x1b[31m",
            b"9" * 30,
        ),
    ),
    "body": Target(
        check=of_bytes(body),
        words=(
            b'"model"',
            b'"stream"',
            b"true",
            b"null",
            b'"stream_options"',
            b"\\ud83d",
            b"[" * 50,
            b'{"model":"a"}',
        ),
    ),
    "form": Target(
        check=of_bytes(form),
        words=(
            b"--b",
            b"--b--",
            b"\r\n\r\n",
            b'; name="model"',
            b"; name=stream",
            b"content-disposition:",
            b"--b b\r\n",
        ),
    ),
    "answers": Target(
        check=of_bytes(answers),
        words=(
            b'"usage"',
            b'"timings"',
            b"data: ",
            b"data: [DONE]\n\n",
            b'"total_tokens":',
            b'"choices":[]',
            b"\r\n\r\n",
        ),
    ),
    "edge": Target(
        check=of_bytes(edge),
        words=(
            b"Content-Length: 1\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\r\n ",
            b"chunked",
            b"GET / HTTP/1.1\r\n",
            b";a=b",
        ),
    ),
    "engine": Target(
        check=engine,
        words=(
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.0",
            b"0\r\n\r\n",
        ),
    ),
    "admin": Target(
        check=admin,
        words=(
            b"POST ",
            b"/models/m1/",
            b"/bill",
            b"?",
            b"%00",
            b"..",
            b"Content-Length: 5\r\n",
            b"Origin: x\r\n",
            b"Upgrade: h2c\r\n",
        ),
    ),
}
