"""Reads the meaning of each setting from the source of its class.

Python keeps no text of attributes. Only the manual, the schema and some hints need it, so it is read when it
is asked for.
"""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping


class Meanings:
    """The text below each attribute of settings classes; each module is read once."""

    def __init__(self) -> None:
        self._texts: dict[str, Mapping[tuple[str, str], str]] = {}

    def of(self, makes: type, attribute: str = "") -> str:
        """Return the text of an attribute, or of the class itself, as one line."""
        module = makes.__module__
        if module not in self._texts:
            self._texts[module] = dict(_texts(inspect.getsource(sys.modules[module])))
        own = self._texts[module].get((makes.__name__, attribute), "")
        if attribute and not own and makes.__base__ not in (None, object):
            return self.of(makes.__base__, attribute)
        return " ".join(own.split())


def _texts(source: str) -> Iterator[tuple[tuple[str, str], str]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            yield (node.name, ""), ast.get_docstring(node) or ""
            for one, below in zip(node.body, node.body[1:], strict=False):
                text = below.value if isinstance(below, ast.Expr) else None
                if (
                    isinstance(one, ast.AnnAssign)
                    and isinstance(one.target, ast.Name)
                    and isinstance(text, ast.Constant)
                ):
                    yield (node.name, one.target.id), str(text.value)
