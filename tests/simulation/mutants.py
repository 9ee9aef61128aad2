"""Defects planted by hand, each of a kind that has happened to somebody: the simulation must find every one.

A mutant is a change of the source, made while it is imported. One whose text is no longer there is stale and
says so.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One planted defect."""

    name: str
    module: str
    old: str
    new: str


MUTANTS: Sequence[Mutant] = ()


class StaleMutant(Exception):
    """The text that a mutant changes stands no longer there, or stands there twice."""


class _Loader(SourceFileLoader):
    def __init__(self, mutant: Mutant, path: str) -> None:
        super().__init__(mutant.module, path)
        self._mutant = mutant

    def get_code(self, fullname: str):
        """Compile the changed source; never from a cache, never into one."""
        source = self.get_data(self.path).decode()
        if source.count(self._mutant.old) != 1:
            raise StaleMutant(f"{self._mutant.name}: {source.count(self._mutant.old)} places")
        return compile(source.replace(self._mutant.old, self._mutant.new), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None and spec.origin is not None
        return importlib.util.spec_from_loader(fullname, _Loader(self._mutant, spec.origin), origin=spec.origin)


def plant(name: str) -> None:
    """Change the source of the module that a mutant is in. Call it before anything of poorwill is imported."""
    mutant = next(each for each in MUTANTS if each.name == name)
    if mutant.module in sys.modules:
        raise StaleMutant(f"{mutant.module} has been imported already")
    sys.meta_path.insert(0, _Finder(mutant))
