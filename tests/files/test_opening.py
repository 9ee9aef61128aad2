"""Only safe files are opened, and nothing waits for a FIFO."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from poorwill.hosts.files.opening import UnsafeFile, open_own, open_to_read, own_directory, read_whole


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [fifo, directory, link_to_fifo, listening_socket, device])
def test_only_regular_files_are_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "x"
    make(path)
    with pytest.raises(OSError) as caught:
        open_to_read(path)
    assert caught.value.strerror and str(path) == str(caught.value.filename)


@pytest.mark.parametrize("make", [fifo, link_to_fifo, listening_socket, device])
def test_only_regular_files_are_written(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "x"
    make(path)
    with pytest.raises(OSError):
        open_own(path, os.O_RDWR | os.O_CREAT)


def test_own_files_are_no_links(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "soft").symlink_to(victim)
    (tmp_path / "hard").hardlink_to(victim)
    for name in ("soft", "hard"):
        with pytest.raises(UnsafeFile):
            open_own(tmp_path / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert victim.read_text() == "precious"
    assert read_whole(tmp_path / "soft", most_bytes=100) == b"precious"


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_own_files_are_written_by_nobody_else(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x"
    path.write_text("")
    path.chmod(mode)
    with pytest.raises(UnsafeFile, match="by everybody"):
        open_own(path, os.O_RDONLY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_own_files_belong_to_this_user(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("")
    os.chown(path, 12345, -1)
    with pytest.raises(UnsafeFile, match="belongs to user 12345"):
        open_own(path, os.O_RDONLY)
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(UnsafeFile, match="belongs to user 12345"):
        own_directory(tmp_path)
    os.chown(tmp_path, 0, -1)


def test_a_shared_directory_is_refused(tmp_path: Path) -> None:
    for mode in (0o777, 0o1777):
        tmp_path.chmod(mode)
        with pytest.raises(UnsafeFile, match="everybody"):
            own_directory(tmp_path)
    tmp_path.chmod(0o755)
    own_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_reading_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_whole(path, most_bytes=5, own=True) == b"12345"
    with pytest.raises(UnsafeFile, match="larger than 4 bytes"):
        read_whole(path, most_bytes=4)


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(UnsafeFile):
            open_to_read(tmp_path)
    assert len(os.listdir("/proc/self/fd")) < before + 20
