"""Installing Debian sid's CRIU into a private prefix, with its own libraries, without touching the system.

apt does the work, with a configuration, package lists and a status file of its own in a temporary
directory: it resolves the dependencies down to libc, downloads from the archive that the machine's own
sources name, and verifies signatures with the machine's own keyring. The packages are unpacked, never
configured; `patchelf`, from the same archive, points the binary at its own loader and libraries, so that
it stays one file that can carry capabilities.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.tiers.frozen.criu import TOOL_PATH, Criu, inspect_criu, run_bounded

SUITE = "sid"
PACKAGES = ("criu", "patchelf")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
STEP_LIMIT_S = 300.0

APT_CONF = """
Dir::Etc "{root}";
Dir::Etc::main "apt.conf";
Dir::Etc::parts "parts";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "sources";
Dir::Etc::preferencesparts "parts";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
"""
"""Root in all but name: the sandbox user could not enter a directory that is the owner's alone."""


async def install_criu(
    prefix: Path, *, env: Mapping[str, str], tell: Callable[[str], None] = lambda text: None
) -> Criu:
    """Install into `prefix` unless a CRIU that starts is there already; return it.

    `tell` is told each step. The prefix is swapped in whole, by a rename: cancelled or failed, what was
    there before is still there. Raises OperatorFault with what to do instead.
    """
    present = await inspect_criu(str(prefix / "criu"))
    if present is not None:
        return present
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".criu-", dir=prefix.parent) as scratch:
        apt = _Apt(root=Path(scratch) / "apt", env=env)
        tell(f"reading the package lists of Debian {SUITE} (about 11 MB)")
        await apt.prepare()
        await apt.run("apt-get", "-q", "update")
        tell("downloading criu, patchelf and their libraries (about 10 MB)")
        await apt.run(
            "apt-get",
            "-q",
            "-y",
            "--no-install-recommends",
            "--download-only",
            "install",
            *PACKAGES,
        )
        tell(f"unpacking into {prefix}")
        new = Path(scratch) / "prefix"
        await _unpack(apt, new, final=prefix)
        _swap(new, prefix, old=Path(scratch) / "old")
    installed = await inspect_criu(str(prefix / "criu"))
    if installed is None:
        raise _fault(f"the CRIU unpacked into {prefix} does not start")
    return installed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Apt:
    """apt with everything it reads or writes under `root`, but the machine's proxies and certificates."""

    root: Path
    env: Mapping[str, str]

    async def prepare(self) -> None:
        for folder in ("lists/partial", "cache/archives/partial", "sources", "parts"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "status").touch()
        if shutil.which("apt-get", path=TOOL_PATH) is None:
            raise _fault("this machine has no apt")
        acquire = await self._ask({}, "apt-config", "dump", "Acquire")
        mirror = await self._mirror()
        (self.root / "sources" / "sid.sources").write_text(
            f"Types: deb\nURIs: {mirror}\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEYRING}\n"
        )
        (self.root / "apt.conf").write_text(acquire + APT_CONF.format(root=self.root))

    async def run(self, *argv: str) -> str:
        """Run a program of apt's in this configuration; its output. Raises OperatorFault."""
        return await self._ask({"APT_CONFIG": str(self.root / "apt.conf")}, *argv)

    async def _mirror(self) -> str:
        """Return the Debian archive that this machine's own sources name."""
        listed = await self._ask(
            {},
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(COMPONENT) $(ORIGIN) $(RELEASE)",
            "Created-By: Packages",
        )
        for line in listed.splitlines():
            uri, component, *about = [*line.split(), ""]
            # The security archive has no sid; the origin is only known once its lists were fetched.
            if component == "main" and about[0] in ("Debian", "$(ORIGIN)") and "security" not in uri:
                return uri
        raise _fault("this machine's apt sources name no Debian archive")

    async def _ask(self, more: Mapping[str, str], *argv: str) -> str:
        with tempfile.TemporaryFile() as output:
            status = await run_bounded(
                argv,
                output=output,
                limit_s=STEP_LIMIT_S,
                env={**self.env, "PATH": TOOL_PATH, "LC_ALL": "C", **more},
            )
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        if status != 0:
            ended = "did not end" if status is None else f"failed with status {status}"
            raise _fault(f"{' '.join(argv[:4])} ... {ended}: {' | '.join(text.splitlines()[-4:])}")
        return text


async def _unpack(apt: _Apt, new: Path, *, final: Path) -> None:
    os.mkdir(new, mode=0o755)
    for package in sorted((apt.root / "cache" / "archives").glob("*.deb")):
        await apt.run("dpkg-deb", "--extract", str(package), str(new))
    loaders = sorted((new / "usr").glob("lib*/ld-linux*"))
    libraries = sorted((new / "usr" / "lib").glob("*-linux-gnu*"))
    if not loaders or not libraries:
        raise _fault("the packages are laid out differently than expected")
    binary = new / "criu"
    shutil.copy2(new / "usr" / "sbin" / "criu", binary)
    # patchelf itself needs the same newer libc, so it is run through the unpacked loader.
    await apt.run(
        str(loaders[0]),
        "--library-path",
        str(libraries[0]),
        str(new / "usr" / "bin" / "patchelf"),
        "--set-interpreter",
        str(final / loaders[0].relative_to(new)),
        "--force-rpath",
        "--set-rpath",
        str(final / libraries[0].relative_to(new)),
        str(binary),
    )
    for spare in ("share", "bin", "sbin"):
        shutil.rmtree(new / "usr" / spare, ignore_errors=True)


def _swap(new: Path, prefix: Path, *, old: Path) -> None:
    if prefix.exists():
        prefix.rename(old)
    new.rename(prefix)


def _fault(what: str) -> OperatorFault:
    return OperatorFault(
        ErrorCode.CONFIG_INVALID,
        f"cannot install CRIU: {what}",
        hint="install CRIU 4.2 or later yourself and have it on PATH; without it, models park cold",
    )
