"""The model's name is changed for an engine that has another; every other value survives."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poorwill.gateway.upstream.model_name import renamed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.text(), st.booleans())
def test_all_but_the_name_survives_in_order(fields: dict[str, object], name: str, ascii_only: bool) -> None:
    asked = fields | {"model": "before"}
    told = json.loads(renamed(json.dumps(asked, ensure_ascii=ascii_only).encode(), name))
    assert list(told.items()) == list((asked | {"model": name}).items())


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"prompt":"x"}', b"no json", b'"\xff"'])
def test_no_model_field_no_change(body: bytes) -> None:
    assert renamed(body, "other") == body
