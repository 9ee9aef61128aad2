"""Every key of any document is found on its own line."""

import tomllib
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from poorwill.config.key_lines import KeyPath, locate

BARE = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
KEYS = st.one_of(BARE, TEXT)


def basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass
class Writer:
    """Writes a document and notes on which line each path went."""

    text: str = ""
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def put(self, text: str) -> None:
        self.text += text

    def note(self, path: KeyPath) -> None:
        self.lines[path] = self.text.count("\n") + 1


@st.composite
def gaps(draw: st.DrawFn) -> str:
    """White space as it may stand between the items of an array: comments with brackets and quotes too."""
    return draw(st.sampled_from(["", " ", "\n", "\r\n", " # ] } \" ''' = [\n", "\n\n\t"]))


@st.composite
def key_text(draw: st.DrawFn, key: str) -> str:
    plain = key.isascii() and key.replace("-", "").replace("_", "").isalnum() and key != ""
    styles = ["basic", *(["bare"] if plain else []), *(["literal"] if "'" not in key else [])]
    style = draw(st.sampled_from(styles))
    return {"basic": basic(key), "bare": key, "literal": f"'{key}'"}[style]


SCALARS = st.sampled_from(
    [
        "1", "-0.5", "1e9", "inf", "true", "1979-05-27 07:32:00Z", "07:32:00", "0xff",
        '""', '"a ] b"', '"\\" # ["', "'c:\\'", "'# ='",
        '"""x"""', '"""\nline\n"""', '""""quoted""" # still a comment'.replace(" # still a comment", ""),
        '"""two quotes"""""', '"""esc \\""" end"""', "'''lit\\'''", "'''a\n[b]\n\n'''", "''''x'''''",
    ]
)  # fmt: skip


def write_value(draw: st.DrawFn, out: Writer, path: KeyPath, depth: int) -> None:
    shape = draw(st.sampled_from(["scalar", "scalar", "array", "inline"] if depth else ["scalar"]))
    if shape == "scalar":
        out.put(draw(SCALARS))
    elif shape == "array":
        out.put("[" + draw(gaps()))
        size = draw(st.integers(0, 3))
        for index in range(size):
            out.note((*path, index))
            write_value(draw, out, (*path, index), depth - 1)
            out.put(draw(gaps()))
            if index < size - 1 or draw(st.booleans()):
                out.put("," + draw(gaps()))
        out.put("]")
    else:
        out.put("{")
        keys = draw(st.lists(KEYS, unique=True, max_size=3))
        for index, key in enumerate(keys):
            out.put(", " if index else " ")
            write_pair(draw, out, path, [key], depth - 1)
        out.put("}")


def write_pair(draw: st.DrawFn, out: Writer, prefix: KeyPath, keys: list[str], depth: int) -> None:
    line_paths = [(*prefix, *keys[: i + 1]) for i in range(len(keys))]
    for path in line_paths[:-1]:
        if path not in out.lines:
            out.note(path)
    out.note(line_paths[-1])
    dot = draw(st.sampled_from([".", " . "]))
    out.put(dot.join(draw(key_text(key)) for key in keys) + draw(st.sampled_from(["=", " = "])))
    write_value(draw, out, line_paths[-1], depth)


@st.composite
def documents(draw: st.DrawFn) -> Writer:
    out = Writer()
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    names = draw(st.lists(KEYS, unique=True, max_size=5))
    for name in names:
        out.put(draw(st.sampled_from(["", "# [x] = 'y'" + newline, newline])))
        shape = draw(st.sampled_from(["table", "tables", "nested"]))
        for entry in range(draw(st.integers(1, 3)) if shape == "tables" else 1):
            header = draw(key_text(name))
            path: KeyPath = (name,)
            if shape == "tables":
                path = (name, entry)
                out.lines.setdefault((name,), out.text.count("\n") + 1)
                out.note(path)
                out.put(f"[[ {header} ]]" + newline)
            elif shape == "nested":
                out.note((name,))
                path = (name, "sub")
                out.note(path)
                out.put(f"[{header}.sub]  # comment ]" + newline)
            else:
                out.note(path)
                out.put(f"[{header}]" + newline)
            for key in draw(st.lists(KEYS, unique=True, max_size=3)):
                keys = [key, *draw(st.lists(KEYS, max_size=2))]
                out.put(draw(st.sampled_from(["", "  "])))
                write_pair(draw, out, path, keys, 2)
                out.put(draw(st.sampled_from(["", " # tail ]"])) + newline)
    return out


def paths_of(value: object, path: KeyPath = ()) -> set[KeyPath]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= paths_of(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths_of(inner, (*path, index))
    return found


@given(documents())
def test_every_key_is_on_its_line(out: Writer) -> None:
    parsed = tomllib.loads(out.text)
    assert paths_of(parsed) == set(out.lines), "the generator itself must know every path"
    lines = locate(out.text)
    assert {path: lines.of(path) for path in out.lines} == out.lines
    assert all(lines.has(path) for path in out.lines)


def test_a_missing_key_has_its_tables_line() -> None:
    lines = locate("a = 1\n[models.x]\n\n[[rates]]\n[[rates]]\nb = [\n1,\n2]\n")
    assert lines.of(("models", "x", "path")) == 2
    assert lines.of(("models", "y")) == 2
    assert lines.of(("rates", 1, "c", "d")) == 5
    assert lines.of(("rates", 1, "b", 1)) == 8
    assert lines.of(("nothing",)) is None
    assert not lines.has(("models", "x", "path"))


def test_subtables_belong_to_the_last_entry() -> None:
    text = "[[m]]\n[m.floor]\na = 1\n[[m]]\n[[m.floor]]\na.b = 1\n[[m.floor]]\na.b = 2\n"
    lines = locate(text)
    assert lines.of(("m", 0, "floor", "a")) == 3
    assert lines.of(("m", 1, "floor", 0, "a", "b")) == 6
    assert lines.of(("m", 1, "floor", 1, "a", "b")) == 8
