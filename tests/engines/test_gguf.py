"""The random model and the reader of GGUF headers: deterministic, atomic, and every damage is named."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poorwill.core.errors import OperatorFault
from poorwill.engines.weights.gguf_header import TYPE_BYTES, read_gguf_header
from poorwill.engines.weights.gguf_model import make_model
from poorwill.engines.weights.gguf_vocabulary import SPECIALS, byte_letters, learn_vocabulary


def test_the_same_arguments_make_the_same_bytes(tmp_path, tiny_model):
    again = make_model(tmp_path / "again.gguf")
    other = make_model(tmp_path / "other.gguf", seed=1)
    digests = [hashlib.sha256(p.read_bytes()).digest() for p in (tiny_model, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_the_header_tells_what_the_model_is(tiny_model):
    header = read_gguf_header(tiny_model)
    assert header.architecture == "llama"
    assert 4e6 < header.parameters < 6e6
    assert header.context == 4096
    assert header.chat_template
    assert header.file_bytes == tiny_model.stat().st_size > 2 * header.parameters


def test_a_model_file_is_replaced_whole(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    make_model(path)
    assert read_gguf_header(path).architecture == "llama"
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


def test_an_unwritable_model_leaves_nothing(tmp_path):
    with pytest.raises(OperatorFault, match="cannot write the model"):
        make_model(tmp_path / "missing" / "model.gguf")
    with pytest.raises(OperatorFault, match="no model size '1t'"):
        make_model(tmp_path / "model.gguf", size="1t")
    assert list(tmp_path.iterdir()) == []


def test_the_vocabulary_encodes_every_byte():
    vocabulary = learn_vocabulary(200)
    assert vocabulary.tokens[: len(SPECIALS)] == SPECIALS
    assert set(byte_letters().values()) <= set(vocabulary.tokens)
    assert len(set(vocabulary.tokens)) == len(vocabulary.tokens)
    assert len(vocabulary.merges) == 200
    assert any(token.endswith("bird") for token in vocabulary.tokens)


def test_type_sizes_match_the_format():
    from gguf.constants import GGML_QUANT_SIZES

    assert {int(kind): size for kind, size in GGML_QUANT_SIZES.items()} == dict(TYPE_BYTES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no GGUF file"),
        (b"PK\x03\x04 a zip file", "is no GGUF file"),
        (b"GGUF\x09\0\0\0" + bytes(16), "has GGUF version 9"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16, "has an impossible header"),
        (b"GGUF\x03\0\0\0" + bytes(16), "is no language model"),
        (b"GGUF\x03\0\0\0" + b"\1" + bytes(15), "is no language model"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path, content, message):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(OperatorFault) as caught:
        read_gguf_header(path)
    assert message in str(caught.value) or "truncated" in str(caught.value)
    assert caught.value.hint


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(OperatorFault, match="No such file"):
        read_gguf_header(tmp_path / "none.gguf")
    with pytest.raises(OperatorFault, match="directory"):
        read_gguf_header(tmp_path)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 0.999999))
def test_a_truncated_model_is_recognised(tmp_path_factory, tiny_model, share):
    whole = tiny_model.read_bytes()
    path: Path = tmp_path_factory.mktemp("cut") / "cut.gguf"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(OperatorFault, match=r"truncated|no GGUF"):
        read_gguf_header(path)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_header_is_read_or_refused(tmp_path_factory, data):
    path: Path = tmp_path_factory.mktemp("noise") / "noise.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + data)
    with pytest.raises(OperatorFault):
        read_gguf_header(path)
