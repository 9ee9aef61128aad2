"""Building a guest: the archive, the kernel's modules, the record, and the agent that runs inside."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from poorwill.core.errors import OperatorFault
from poorwill.hosts.guests import agent as guest_agent
from poorwill.hosts.guests.archive import Archive, ArchiveError
from poorwill.hosts.guests.build import MODEL, GuestPlan, build_guest
from poorwill.hosts.guests.directory import open_guest
from poorwill.hosts.guests.kernel import MODULES, Kernel, module_order
from poorwill.hosts.guests.python_files import byte_code

from .virtual import debian

__all__ = ["debian"]  # fixtures


def test_busybox_unpacks_our_archive(tmp_path: Path, debian: tuple[Kernel, Path]):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 70_001)
    source.chmod(0o755)
    out = io.BytesIO()
    archive = Archive(out=out)
    archive.text("etc/name", "poorwill\n")
    archive.file("usr/bin/tool", source)
    archive.link("bin/sh", "busybox")
    archive.directory("proc")
    archive.finish()
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(
        [debian[1], "cpio", "-i", "-d"],
        input=out.getvalue(),
        cwd=target,
        check=True,
        capture_output=True,
    )
    assert (target / "etc/name").read_text() == "poorwill\n"
    assert (target / "usr/bin/tool").read_bytes() == source.read_bytes()
    assert (target / "usr/bin/tool").stat().st_mode & 0o777 == 0o755
    assert (target / "bin/sh").readlink() == Path("busybox")
    assert (target / "proc").is_dir()


def test_the_same_input_makes_the_same_archive(tmp_path: Path):
    def packed() -> bytes:
        out = io.BytesIO()
        archive = Archive(out=out)
        archive.text("a/b/c", "text")
        archive.device("dev/console", major=5, minor=1)
        archive.finish()
        return out.getvalue()

    assert packed() == packed()


def test_modules_come_after_what_they_depend_on(debian: tuple[Kernel, Path]):
    names = [name for name, _ in module_order(debian[0], MODULES)]
    assert set(MODULES) <= set(names)
    for first, later in (
        ("virtio", "virtio_pci"),
        ("virtio_ring", "virtio_pci"),
        ("net_failover", "virtio_net"),
    ):
        assert names.index(first) < names.index(later)


def test_byte_code_runs_without_its_source(tmp_path: Path):
    source = tmp_path / "answer.py"
    source.write_text("print(6 * 7)")
    compiled = tmp_path / "answer.pyc"
    compiled.write_bytes(byte_code(source, "answer.py"))
    source.unlink()
    done = subprocess.run([sys.executable, compiled], capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"


@pytest.fixture
def plan(tmp_path: Path) -> GuestPlan:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"weights")
    return GuestPlan(
        directory=tmp_path / "guest",
        engine="toy",
        argv=(sys.executable, "-m", "poorwill.engines.programs.toy_server", "--model", str(model)),
        packages=("poorwill.engines.programs",),
        model=model,
    )


def test_a_guest_is_read_back_as_it_was_built(plan: GuestPlan, debian: tuple[Kernel, Path]):
    guest = build_guest(plan, kernel=debian[0], busybox=debian[1])
    assert open_guest(plan.directory) == guest
    assert guest.facts["command"].endswith(f"--model {MODEL}")
    assert plan.model is not None
    plan.model.write_bytes(b"other weights")
    other = replace(plan, directory=plan.directory.with_name("other"))
    assert build_guest(other, kernel=debian[0], busybox=debian[1]).digest != guest.digest
    plan.model.unlink()
    with pytest.raises(OperatorFault, match=r"lacks .*model\.gguf"):
        open_guest(plan.directory)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"memory_mib": 64}, "64 MiB are too little .*give it"),
        ({"packages": ("no_such_package",)}, "no_such_package is not installed"),
        ({"packages": ("no.such.package",)}, r"no\.such\.package is not installed"),
    ],
)
def test_a_plan_that_cannot_work_leaves_nothing_behind(
    plan: GuestPlan, debian: tuple[Kernel, Path], changes: dict[str, object], why: str
):
    with pytest.raises(OperatorFault, match=why):
        build_guest(replace(plan, **changes), kernel=debian[0], busybox=debian[1])
    assert sorted(path.name for path in plan.directory.parent.iterdir()) == ["model.gguf"]


def test_a_directory_in_use_is_replaced_only_when_asked(plan: GuestPlan, debian: tuple[Kernel, Path]):
    plan.directory.mkdir()
    with pytest.raises(OperatorFault, match="already"):
        build_guest(plan, kernel=debian[0], busybox=debian[1])
    guest = build_guest(plan, kernel=debian[0], busybox=debian[1], replacing=True)
    assert open_guest(plan.directory) == guest


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"format": 99}'])
def test_a_directory_without_record_is_no_guest(tmp_path: Path, record: str):
    (tmp_path / "guest.json").write_text(record)
    with pytest.raises(OperatorFault, match="guest build"):
        open_guest(tmp_path)


def test_a_file_too_large_is_refused(tmp_path: Path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(ArchiveError, match="4 GiB"):
        Archive(out=io.BytesIO()).file("large", large)


def test_the_agent_answers_only_what_it_knows():
    assert guest_agent.answer("time").startswith("time 1")
    for line in ("", "set", "set now", "reboot", "set 1 2 3"):
        assert guest_agent.answer(line) == "unknown"
