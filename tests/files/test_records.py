"""CSV and JSON as real programs write them, and bombs that end in a clear error."""

import gzip
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.hosts.files.opening import UnsafeFile
from poorwill.hosts.files.records import MOST_LINE, Row, open_table, read_rows

ROWS = [{"a": "1", "b": "x"}, {"a": "2.50", "b": ""}]


def rows_of(path: Path, data: bytes, most_bytes: int = 2**24) -> list[Row]:
    path.write_bytes(data)
    with open_table(path, most_bytes=most_bytes) as file:
        return [row for _, row in read_rows(file).rows]


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\n1,x\n2.50,\n",
        b"\xef\xbb\xbfa,b\r\n1,x\r\n\r\n2.50,\r\n",
        b"\n a , b \n1,x\n,\n2.50,\n",
        "a,b\n1,x\n2.50,\n".encode("utf-16"),
        b"a;b\n1;x\n2.50;\n",
        gzip.compress(b"\xef\xbb\xbfa,b\n1,x\n2.50,\n", mtime=0),
        b'{"a": 1, "b": "x"}\r\n\r\n{"a": 2.50, "b": null}\r\n',
        b'\xef\xbb\xbf[{"a": 1, "b": "x"}, [[{"a": 2.50, "b": null}], []]]',
        b'[\n{"a": 1,\n"b": "x"},\n{"a": 2.50, "b": ""}\n]\n',
    ],
)
def test_real_exports_are_read(tmp_path: Path, data: bytes) -> None:
    assert rows_of(tmp_path / "t", data) == ROWS


def test_bad_rows_come_with_line_and_reason() -> None:
    assert list(read_rows(io.StringIO("a,b\n1\n1,2\n1,2,3\n")).rows) == [
        (2, "1 fields, the header has 2"),
        (3, {"a": "1", "b": "2"}),
        (4, "3 fields, the header has 2"),
    ]
    text = '{"a": 1}\n{"a"\n1\n' + "[" * 100_000 + "\n"
    kinds = [row if isinstance(row, str) else "read" for _, row in read_rows(io.StringIO(text)).rows]
    assert kinds[0] == "read" and kinds[1].startswith("not JSON") and kinds[2] == "not a JSON object"
    assert kinds[3] == "not JSON: nested too deeply"


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    for data in (b"", b"\xef\xbb\xbf", b"\r\n\n"):
        assert rows_of(tmp_path / "t", data) == []


def test_bombs_end_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "t"
    one_line = gzip.compress(b"a," * 2**26)
    many_rows = gzip.compress(b"a\n" * 2**25)
    tracemalloc.start()
    with pytest.raises(OSError, match="a line has more than"):
        rows_of(path, one_line, most_bytes=2**30)
    path.write_bytes(many_rows)
    with open_table(path, most_bytes=2**20) as file, pytest.raises(UnsafeFile, match="too large"):
        assert sum(1 for _ in read_rows(file).rows) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MOST_LINE


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    for data in (gzip.compress(b"a,b\n" * 999)[:-20], b"\x1f\x8bjunk", gzip.compress(b"a\n1\n") + b"junk"):
        with pytest.raises(UnsafeFile, match=r"damaged|too large"):
            rows_of(tmp_path / "t", data)


@given(data=st.binary(max_size=300) | st.text(st.sampled_from('[]{}",:\n\r1aé'), max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    try:
        rows_of(path, data)
    except OSError:
        pass
