"""No import circle anywhere in the source: imports under TYPE_CHECKING and inside functions count too."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, known: Mapping[str, ast.Module]) -> Iterator[str]:
    """The project's modules that a module imports, by whatever statement, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def circle(trees: Mapping[str, ast.Module]) -> list[str]:
    graph = {name: {to for to in imports(tree, trees) if to in trees} for name, tree in trees.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_import_circles() -> None:
    trees = {module_name(path): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
    assert len(trees) > 100
    assert circle(trees) == []


def test_every_import_counts_for_circles() -> None:
    a = ast.parse("if TYPE_CHECKING:\n    from p.b import B")
    b = ast.parse("def f():\n    from p import a")
    assert set(circle({"p": ast.parse(""), "p.a": a, "p.b": b})) == {"p.a", "p.b"}
    assert circle({"p": ast.parse(""), "p.a": a, "p.b": ast.parse("")}) == []
