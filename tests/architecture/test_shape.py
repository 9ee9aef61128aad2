"""The shape of the source: small files and functions, no state at module level, honest names, a short
path through the machine."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from poorwill.core.errors import ErrorCode
from poorwill.gateway.wire import ERROR_SHAPES, http_status

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "poorwill"
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES = 400
MOST_FUNCTION_LINES = 60
MACHINE_LINES = 4500
ROOM_LINES = 5000
MOST_ENTRIES = 16
VAGUE = {
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "misc",
    "manager",
    "handler",
    "handlers",
    "base",
}

source_files = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))


@source_files
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@source_files
def test_functions_are_short(path: Path) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert long == []


@source_files
def test_files_are_named_and_documented(path: Path) -> None:
    assert path.stem not in VAGUE
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_a_folder_is_seen_at_a_glance() -> None:
    entries = defaultdict[Path, set[str]](set)
    for path in SOURCE.rglob("*"):
        inner = path.relative_to(SOURCE)
        if path.is_file() and inner.name != "__init__.py" and "__pycache__" not in inner.parts:
            for folder, entry in zip(inner.parents, [inner, *inner.parents], strict=False):
                entries[folder].add(entry.name)
    assert len(entries[Path()]) > 10
    assert {str(folder): len(names) for folder, names in entries.items() if len(names) > MOST_ENTRIES} == {}


def test_a_room_is_read_in_an_evening() -> None:
    rooms = Counter[str]()
    for path in FILES:
        rooms[path.relative_to(SOURCE).parts[0]] += len(path.read_text().splitlines())
    assert len(rooms) > 10
    assert {room: lines for room, lines in rooms.items() if lines > ROOM_LINES} == {}


MUTABLE_CALLS = {
    "list", "dict", "set", "bytearray", "deque", "defaultdict", "Counter", "OrderedDict", "count",
    "Lock", "Event", "Queue", "Semaphore", "local", "ContextVar", "WeakSet", "WeakValueDictionary",
    "WeakKeyDictionary", "cycle", "iter", "open", "connect", "socket", "Random",
}  # fmt: skip
CACHES = {"cache", "lru_cache"}


def called(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return called(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_constant_table(node: ast.stmt) -> bool:
    """A table that its annotation makes read-only: `NAMES: Mapping[str, str] = {...}`."""
    return (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id.lstrip("_").isupper()
        and re.match(r"(Final\[)?(Mapping|Sequence|frozenset|tuple)\b", ast.unparse(node.annotation))
        is not None
    )


def mutable_state(tree: ast.Module) -> Iterator[str]:
    """Names of mutable objects that live as long as the module."""
    for node in statements(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (node.name for one in node.decorator_list if called(one) in CACHES)
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        name, value = ast.unparse(target), node.value
        literal = isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        if isinstance(node, ast.AugAssign) or called(value) in MUTABLE_CALLS | CACHES:
            yield name
        elif literal and name != "__all__" and not is_constant_table(node):
            yield name


def statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """All statements that run at import: the module's, and those of classes, branches and blocks in it."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for body in ("body", "orelse", "finalbody"):
            waiting += getattr(node, body, [])


def test_a_class_name_has_one_meaning() -> None:
    homes = defaultdict[str, list[str]](list)
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(SOURCE)))
    assert len(homes) > 500
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


@source_files
def test_a_module_has_no_mutable_state(path: Path) -> None:
    assert list(mutable_state(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("x = []", ["x"]),
        ("X: dict[str, int] = {}", ["X"]),
        ("X: Mapping[str, int] = {}", []),
        ("x: Mapping[str, int] = {}", ["x"]),
        ("X = MappingProxyType({})", []),
        ("X = frozenset({1})", []),
        ("X = (1, 2)", []),
        ("import itertools\nids = itertools.count()", ["ids"]),
        ("class A:\n    seen = set()", ["seen"]),
        ("if True:\n    lock = threading.Lock()", ["lock"]),
        ("@functools.lru_cache(maxsize=1)\ndef f(): ...", ["f"]),
        ("def f():\n    x = []", []),
        ("__all__ = ['a']", []),
    ],
)
def test_the_search_for_state_finds_it(code: str, found: list[str]) -> None:
    assert list(mutable_state(ast.parse(code))) == found


MODULES = {
    ".".join(["poorwill", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in FILES
}


def machine_path() -> list[Path]:
    text = (ROOT / "docs" / "READING.md").read_text()
    listed = re.search(r"<!-- machine: begin -->\n(.*?)<!-- machine: end -->", text, re.S)
    assert listed, "docs/READING.md marks the machine's path"
    return [ROOT / line.removeprefix("- ").strip() for line in listed[1].splitlines()]


def imported(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield from ((node.module, alias.name) for alias in node.names)


def home_of(module: str, name: str) -> Path:
    """The file that defines an imported name; a package that only passes names on is looked through."""
    if f"{module}.{name}" in MODULES:
        return MODULES[f"{module}.{name}"]
    path = MODULES[module]
    passed_on = [inner for inner, each in imported(path) if each == name]
    return home_of(passed_on[0], name) if path.stem == "__init__" and passed_on else path


def test_the_machine_is_read_in_an_evening() -> None:
    paths = machine_path()
    assert [path for path in paths if not path.is_file()] == []
    assert sum(len(path.read_text().splitlines()) for path in paths) <= MACHINE_LINES


def test_the_machine_path_has_all_it_imports() -> None:
    paths = machine_path()
    needed = {home_of(module, name) for path in paths for module, name in imported(path)}
    assert needed - set(paths) == set()
    assert len(paths) == len(set(paths)) and SOURCE / "core/machine/cell.py" in paths


def test_every_error_code_has_an_http_status() -> None:
    assert set(ERROR_SHAPES) == set(ErrorCode)
    assert all(400 <= http_status(code) < 600 for code in ErrorCode)
