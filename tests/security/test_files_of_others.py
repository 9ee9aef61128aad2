"""Files that somebody else prepared: nothing hangs, nothing is followed, no bomb takes the machine."""

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from .outside import MIB, poorwill

TOY = '[models.toy]\nengine = "toy"\n'
PLAN = ("plan", "--active-usd-h", "3", "--trace")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")


def model_at(path: str) -> str:
    return f'[models.m]\npath = "{path}"\n'


@pytest.mark.parametrize(
    "args",
    [
        ("check", "pipe"),
        ("check", "model.toml"),
        ("check", "hub.toml"),
        (*PLAN, "pipe"),
        (*PLAN, "trace.csv", "--hosted", "a/b", "--prices", "pipe"),
        ("bill", "--fleet", "fleet.toml", "--reconcile", "pipe"),
        ("status", "locked"),
    ],
    ids=lambda args: " ".join(args),
)
def test_a_fifo_never_hangs_a_verb(tmp_path: Path, args: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "fleet.toml").write_text(TOY)
    (tmp_path / "model.toml").write_text(model_at("pipe"))
    weights = tmp_path / "weights"
    weights.mkdir()
    os.mkfifo(weights / "a.safetensors")
    (tmp_path / "hub.toml").write_text('[models.m]\nengine = "vllm"\npath = "./weights"\n')
    (tmp_path / "trace.csv").write_text("arrival_s\n1\n2\n")
    locked = tmp_path / "locked"
    locked.mkdir()
    (locked / "fleet.toml").write_text(TOY)
    os.mkfifo(locked / "poorwill.lock")
    assert poorwill("keys", "add", "ann", "--fleet", "fleet.toml", cwd=tmp_path).status == 0
    ended = poorwill(*args, cwd=tmp_path, within_s=30)
    assert ended.status not in (0, 70), ended.output
    assert "is a FIFO, not a regular file" in ended.output


def gguf(pairs: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + pairs


def nested(path: Path) -> None:
    arrays = struct.pack("<IQ", 9, 1) * 5000 + struct.pack("<IQ", 0, 1) + b"\1"
    path.write_bytes(gguf(struct.pack("<I", 9) + arrays))


def wide(path: Path) -> None:
    with path.open("wb") as file:  # sparse: arrays of empty texts without an end
        file.write(gguf(struct.pack("<IIQ", 9, 8, 2**22)))
        file.truncate(2**34)


def deep_index(path: Path) -> None:
    path.mkdir()
    (path / "model.safetensors.index.json").write_text("[" * 100_000)


@pytest.mark.parametrize("make", [nested, wide, deep_index])
def test_a_bad_model_file_is_a_problem(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "m.gguf")
    engine = 'engine = "vllm"\n' if make is deep_index else ""
    (tmp_path / "fleet.toml").write_text(model_at("./m.gguf") + engine)
    ended = poorwill("check", ".", cwd=tmp_path)
    assert ended.status == 2 and "Traceback" not in ended.output, ended.output
    assert "models.m.path" in ended.output and ended.peak_bytes < 700 * MIB


@pytest.mark.parametrize(
    "text",
    [
        "a." * 250_000 + "a = 1\n",
        "[" + "a." * 250_000 + "a]\n",
        TOY + f'memory = "{"9" * 900_000} B"\n',
        TOY + f'[[rates]]\nactive_usd_h = "{"9" * 900_000}"\n',
        TOY + "[[rates]]\nactive_usd_h = 1e999999999999\n",
        TOY + "wake_budget_s = 1e-999999999\n",
        TOY + "port = " + "1" * 900_000 + "\n",
        "a = " + "[" * 500_000,
        TOY + "[gateway]\n" + "".join(f"k{at} = 1\n" for at in range(50_000)),
        TOY + "#" * 2**21,
    ],
    ids=range(10),
)
def test_a_bomb_in_fleet_toml_is_a_problem(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.toml").write_text(text)
    ended = poorwill("check", ".", cwd=tmp_path, within_s=45)
    assert ended.status == 2 and "Traceback" not in ended.output, ended.output[-500:]
    assert len(ended.output) < 300_000 and ended.peak_bytes < 700 * MIB


BOMBS = [
    gzip.compress(b"arrival_s," + b"0" * 2**26),
    b"\x1f\x8b\x08 damaged",
    b"[" * 2**20,
    b'{"timestamp": ' + b"[" * 100_000 + b"]}\n",
    b"resource,from,amount\na,2026-01-01,1e-999999999\nb,2026-01-01,1e999999999\n",
    b"provider,model,input_usd_per_mtok,output_usd_per_mtok\na,b,1e999999999,1\n",
]


@pytest.mark.parametrize("data", BOMBS, ids=range(len(BOMBS)))
@pytest.mark.parametrize("verb", ["plan", "prices", "bill"])
def test_a_bomb_in_a_table_is_an_error(tmp_path: Path, verb: str, data: bytes) -> None:
    (tmp_path / "bomb").write_bytes(data)
    (tmp_path / "trace.csv").write_text("arrival_s\n1\n2\n")
    (tmp_path / "fleet.toml").write_text(TOY)
    assert poorwill("keys", "add", "ann", cwd=tmp_path).status == 0
    args = {
        "plan": (*PLAN, "bomb"),
        "prices": (*PLAN, "trace.csv", "--hosted", "a/b", "--prices", "bomb"),
        "bill": ("bill", "--reconcile", "bomb"),
    }[verb]
    ended = poorwill(*args, cwd=tmp_path)
    assert ended.status not in (0, 1, 70) and "Traceback" not in ended.output, ended.output[-800:]
    assert "<class" not in ended.output and "Error(" not in ended.output
    assert ended.peak_bytes < 700 * MIB


@as_root
def test_another_users_directory_is_refused(tmp_path: Path) -> None:
    trap, victim = tmp_path / "poorwill-demo", tmp_path / "victim"
    victim.write_text("precious")
    trap.mkdir()
    (trap / "fleet.toml").write_text("# The fleet of `poorwill demo`.\n" + TOY)
    (trap / "poorwill.lock").symlink_to(victim)
    (trap / "logs").mkdir()
    (trap / "logs" / "toy-0.log").symlink_to(victim)
    os.chown(trap, 65534, 65534)
    for args in (("demo", "--seconds", "5"), ("serve", "poorwill-demo"), ("check", "poorwill-demo")):
        ended = poorwill(*args, cwd=tmp_path)
        assert ended.status == 2 and "belongs to nobody" in ended.output, ended.output
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in trap.iterdir()) == ["fleet.toml", "logs", "poorwill.lock"]


@pytest.mark.parametrize("shared", ["fleet.toml", "."])
def test_what_everybody_can_write_is_refused(tmp_path: Path, shared: str) -> None:
    (tmp_path / "fleet.toml").write_text(TOY)
    os.chmod(tmp_path / shared, 0o777)
    ended = poorwill("serve", ".", cwd=tmp_path)
    assert ended.status == 2 and "can be written by everybody" in ended.output, ended.output


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "fleet.toml").write_text(TOY)
    (tmp_path / "poorwill.lock").symlink_to("victim")
    ended = poorwill("serve", ".", cwd=tmp_path)
    assert ended.status == 2 and "is a link" in ended.output, ended.output
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_backup_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "fleet.toml").write_text(TOY)
    assert poorwill("keys", "add", "ann", cwd=tmp_path).status == 0
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("b.sqlite.partial", "b.sqlite.partial-journal", "b.sqlite-journal"):
        (shared / name).symlink_to("../victim")
    ended = poorwill("ledger", "backup", "shared/b.sqlite", cwd=tmp_path)
    assert ended.status == 0, ended.output
    assert (tmp_path / "victim").read_text() == "precious"
    copy = shared / "b.sqlite"
    assert not copy.is_symlink() and copy.stat().st_mode & 0o777 == 0o600
    assert copy.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("name", ["a/../../x", "a//b", "a/.", "../x", "a/..", "x" * 129])
def test_a_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "fleet.toml").write_text(f'[models."{name}"]\nengine = "toy"\n')
    ended = poorwill("check", ".", cwd=tmp_path)
    assert ended.status == 2 and "is not a name for a model" in ended.output


def test_byte_order_marks_change_nothing(tmp_path: Path) -> None:
    rows = json.dumps([{"arrival_s": at, "model": "m"} for at in range(30)])
    answers = []
    for name, data in {
        "plain": "arrival_s,model\n" + "".join(f"{at},m\n" for at in range(30)),
        "marked": "\ufeffarrival_s,model\r\n" + "".join(f"{at},m\r\n" for at in range(30)),
        "array": rows,
        "marked_array": "\ufeff" + rows,
    }.items():
        (tmp_path / name).write_text(data, newline="")
        ended = poorwill(*PLAN, name, "--json", cwd=tmp_path)
        assert ended.status == 0, ended.output
        answers.append(json.loads(ended.output)["requests"])
    assert set(answers) == {30}
