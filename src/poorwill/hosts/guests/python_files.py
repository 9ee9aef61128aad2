"""Which files a guest needs to run a Python program: this interpreter, its library, packages, shared objects.

The library goes in as byte code without sources, which an emulated processor starts several times faster.
Reads the running installation; writes into an archive only.
"""

import importlib.util
import marshal
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from poorwill.hosts.guests.archive import Archive, ArchiveError

INTERPRETER = "/usr/bin/python3"
PACKAGES = "/usr/lib/guest-packages"
LIBRARIES = "/usr/lib/guest"
"""Where shared objects go, all in one directory; the guest's LD_LIBRARY_PATH."""

_LEFT_OUT = re.compile(
    r"(^|/)(__pycache__|test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|site-packages"
    r"|dist-packages|distutils|venv|config-[^/]*|curses)(/|$)|(^|/)_(tkinter|curses|curses_panel|gdbm|dbm|test[a-z]*|xx[a-z]*)\."
)
_WORTH_STRIPPING_BYTES = 2**20
_LOADER = re.compile(r"^\s*(/\S*ld-linux\S*)", re.MULTILINE)
_NEEDED = re.compile(r"=> (/\S+)")


def add_python(archive: Archive, *, packages: Iterable[str]) -> None:
    """Add the interpreter, its standard library, `packages` and every shared object they need.

    Takes some seconds: each module is compiled. Raises ArchiveError if a package is not installed.
    """
    binary = Path(sys.executable).resolve()
    shared = [binary]
    _add_shared(archive, binary, INTERPRETER)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = f"/usr/lib/{version}"
    for source, name in _tree(Path(sysconfig.get_path("stdlib"))):
        shared += _add(archive, source, f"{home}/{name}")
    for package in packages:
        for source, name in _package(package):
            shared += _add(archive, source, f"{PACKAGES}/{name}")
    for library in _shared_objects(shared):
        loader = library.name.startswith("ld-linux")
        _add_shared(archive, library, str(library) if loader else f"{LIBRARIES}/{library.name}")


def byte_code(source: Path, name: str) -> bytes:
    """Compile a module to an unchecked hash-based .pyc (PEP 552) that needs no source beside it.

    The eight bytes after the flags hold the source's hash, which nobody checks.
    """
    code = compile(source.read_bytes(), name, "exec", dont_inherit=True)
    unchecked = (1).to_bytes(4, "little") + bytes(8)
    return importlib.util.MAGIC_NUMBER + unchecked + marshal.dumps(code)


def _add(archive: Archive, source: Path, target: str) -> list[Path]:
    if source.suffix == ".py":
        archive.text(f"{target}c", byte_code(source, target))
        return []
    if ".so" not in source.suffixes:
        archive.file(target, source)
        return []
    _add_shared(archive, source, target)
    return [source]


def _add_shared(archive: Archive, source: Path, target: str) -> None:
    """Add a large shared object without its debug sections, which every snapshot would carry along."""
    strip = shutil.which("strip")
    if strip is None or source.stat().st_size < _WORTH_STRIPPING_BYTES:
        archive.file(target, source)
        return
    with tempfile.NamedTemporaryFile() as stripped:
        command = [strip, "--strip-debug", "-o", stripped.name, str(source)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        os.chmod(stripped.name, source.stat().st_mode)
        archive.file(target, source if done.returncode else Path(stripped.name))


def _tree(root: Path) -> Iterator[tuple[Path, str]]:
    for directory, names, files in os.walk(root):
        names.sort()
        for file in sorted(files):
            source = Path(directory, file)
            name = source.relative_to(root).as_posix()
            if not _LEFT_OUT.search(name) and source.suffix in (".py", ".so", ".json", ".txt"):
                yield source, name


def _package(name: str) -> Iterator[tuple[Path, str]]:
    """Yield a package's files and the `__init__.py` of the packages it is in."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ArchiveError(f"the Python package {name} is not installed here")
    home = Path(next(iter(spec.submodule_search_locations)))
    inside = name.replace(".", "/")
    for source, file in _tree(home):
        yield source, f"{inside}/{file}"
    for up, parent in enumerate(Path(inside).parents[:-1]):
        yield home.parents[up] / "__init__.py", f"{parent}/__init__.py"


def _shared_objects(files: list[Path]) -> list[Path]:
    """Return what the dynamic loader would load for these files, and the loader itself."""
    listing = subprocess.run(
        ["ldd", *map(str, files)], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    found = {*_NEEDED.findall(listing), *_LOADER.findall(listing)}
    return [Path(path) for path in sorted(found)]
