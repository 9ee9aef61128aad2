"""The model and `stream` are found in any body; only the model's name may change."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.core.errors import RequestFault
from poorwill.engines.dialects.bodies import read_fields, renamed

KEYS = st.text() | st.just("model")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("model"), inner, max_size=3)
    ),
    max_leaves=8,
)
FORM = "multipart/form-data; boundary=----b0undary"


def form(*parts: tuple[str, bytes]) -> bytes:
    lines = [
        b"------b0undary\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (head.encode(), value)
        for head, value in parts
    ]
    return b"".join(lines) + b"------b0undary--\r\n"


AUDIO = form(
    (
        'name="file"; filename="a model; name=\\"model\\".wav"\r\nContent-Type: audio/wav',
        b"\r\n--\x00name=model\xff",
    ),
    ('name="model"', b"whisper"),
    ('name="stream"', b"True"),
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.text(min_size=1), st.booleans())
def test_all_but_the_name_survives_in_order(fields: dict[str, object], name: str, ascii_only: bool) -> None:
    asked = fields | {"model": "before"}
    body = json.dumps(asked, ensure_ascii=ascii_only).encode()
    changed = json.loads(renamed(body, name))
    assert list(changed.items()) == list((asked | {"model": name}).items())
    assert read_fields(renamed(body, name), b"")[0] == name


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"prompt":"x"}', b"no json", b'"\xff"', b"--x", b"--x\r\n"])
def test_no_model_field_no_change(body: bytes) -> None:
    assert renamed(body, "other") == body


def test_white_space_survives() -> None:
    body = b'{ "a" : {"model" : "m"},\t"model" :\n"m" , "b":1e2 }'
    assert renamed(body, "x") == b'{ "a" : {"model" : "m"},\t"model" :\n"x" , "b":1e2 }'


def test_an_escaped_key_is_found() -> None:
    body = rb'{"mod\u0065l":"m","n":1}'
    assert read_fields(body, b"")[0] == "m"
    assert json.loads(renamed(body, "x")) == {"model": "x", "n": 1}


def test_a_form_names_a_model() -> None:
    assert read_fields(AUDIO, FORM.encode()) == ("whisper", True)
    assert renamed(AUDIO, "large-v3") == AUDIO.replace(b"whisper", b"large-v3")
    assert read_fields(form(("name=prompt", b"model")), FORM.encode())[0] == ""


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (AUDIO, "multipart/form-data", "boundary"),
        (AUDIO, "multipart/form-data; boundary=other", "boundary"),
        (form(*[("name=a", b"")] * 101), FORM, "more than 100 parts"),
        (b'{"model":"m","x":"a\\ud83d"}', "", "half of a surrogate pair"),
        (b'{"model":"m","x":"a\\ude00"}', "", "half of a surrogate pair"),
        (b'{"model":"m",}', "", "not JSON"),
        (b"[]", "", "JSON object"),
        (b'{"model":[1]}', "", "`model` must be a string"),
        (b'{"model":""}', "", "`model` must be a string"),
        (b'{"model":"%b"}' % (b"a" * 2000), "", "`model` must be a string"),
        (b'{"x":' + b"[" * 100_000, "", "too deeply"),
    ],
)
def test_wrong_bodies_are_explained(body: bytes, content_type: str, why: str) -> None:
    with pytest.raises(RequestFault, match=why):
        read_fields(body, content_type.encode())


def test_a_whole_emoji_is_fine() -> None:
    assert read_fields(rb'{"model":"m","x":"\ud83d\ude00 \\ud83d"}', b"")[0] == "m"


@pytest.mark.parametrize("unit", [b"[1],", b'{"a":1},', b"1,", b'"a",'])
def test_megabytes_make_no_objects(unit: bytes) -> None:
    body = b'{"messages":[' + unit * (4_000_000 // len(unit)) + b'0],"model":"m","stream":true}'
    tracemalloc.start()
    fields = read_fields(body, b"")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fields == ("m", True) and peak_bytes < 100_000
