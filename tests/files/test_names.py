"""Names of models become names of files: no clash, no escape, never too long."""

from hypothesis import example, given
from hypothesis import strategies as st

from poorwill.hosts.files.names import file_name

NAMES = st.text(max_size=400)


@given(name=NAMES)
@example("a/../../etc/passwd-0")
@example("..")
@example(".hidden")
@example("")
@example("\0\n\x1b[2J")
@example("é" * 200)
def test_a_name_stays_in_its_folder(name: str) -> None:
    encoded = file_name(name)
    assert 0 < len(encoded) <= 200
    assert encoded.isascii() and encoded.isprintable()
    assert "/" not in encoded and not encoded.startswith(".")


@given(one=NAMES, other=NAMES)
@example("a/b", "a%2Fb")
@example("a~b", "a%7Eb")
@example("x" * 300, "x" * 301)
def test_different_names_differ(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) is (one == other)


def test_ordinary_names_stay_readable() -> None:
    assert file_name("llama-3.1-8b-0") == "llama-3.1-8b-0"
    assert file_name("org/model_7b:q4-0") == "org%2Fmodel_7b%3Aq4-0"
