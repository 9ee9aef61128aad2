"""Manifests, check sums, sealing and room for snapshots, without any process."""

import base64
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kept_log import KeptLog
from tests.waiting import wait_until

from poorwill.core.errors import OperatorFault
from poorwill.core.launch import Launch, Parked
from poorwill.core.ports.driver import DriverError, SnapshotRefused
from poorwill.core.words import ModelName, ReplicaId, Tier
from poorwill.tiers.snapshots.image_files import (
    CHUNK_BYTES,
    PAGE_BYTES,
    Chunk,
    Stopped,
    follow,
    record_files,
    stored_bytes,
    verify_files,
)
from poorwill.tiers.snapshots.manifest import (
    HostFacts,
    Manifest,
    decode,
    encode,
    mismatches,
    start_hash_of,
)
from poorwill.tiers.snapshots.sealing import SealBroken, Sealer
from poorwill.tiers.snapshots.space import Space, Value
from poorwill.tiers.snapshots.store import SnapshotStore

LAUNCH = Launch(
    replica=ReplicaId("m/1"),
    model=ModelName("m"),
    engine="toy",
    argv=("engine", "--port", "1"),
    port=8001,
    log_path="/tmp/log",
    digest="sha256:1",
)
MACHINE = HostFacts(kernel="6.1", cpu_flags=("avx2", "sse2"))
GO = threading.Event()


def manifest(**changes: object) -> Manifest:
    values: dict[str, object] = {
        "replica": LAUNCH.replica,
        "model": LAUNCH.model,
        "generation": 3,
        "driver": "frozen",
        "tier": Tier.FROZEN,
        "tool": "criu 4.2",
        "created_us": 1,
        "engine": LAUNCH.engine,
        "digest": LAUNCH.digest,
        "start_hash": start_hash_of(LAUNCH),
        "host": LAUNCH.host,
        "port": LAUNCH.port,
        "machine": MACHINE,
        **changes,
    }
    return Manifest(**values)  # type: ignore[arg-type]


def reasons(
    kept: Manifest, launch: Launch = LAUNCH, machine: HostFacts = MACHINE, tool: str = "criu 4.2"
) -> list[str]:
    return mismatches(kept, launch, tool=tool, machine=machine, generation=3)


def test_a_snapshot_that_fits_has_no_mismatch():
    assert reasons(manifest()) == []
    assert reasons(decode(encode(manifest()))) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "snapshot format: the snapshot has 9, now it is 3"),
        ({"replica": "other"}, "replica: the snapshot has other, now it is m/1"),
        ({"generation": 2}, "generation: the snapshot has 2, now it is 3"),
        ({"engine": "vllm"}, "engine: the snapshot has vllm, now it is toy"),
        ({"digest": "sha256:0"}, "model digest: the snapshot has sha256:0, now it is sha256:1"),
        ({"start_hash": "x"}, "engine arguments: the engine would be started differently now"),
        ({"port": 1}, "port: the snapshot has 1, now it is 8001"),
        ({"host": "::1"}, "address: the snapshot has ::1, now it is 127.0.0.1"),
        ({"tool": "criu 4.1"}, "tool: the snapshot has criu 4.1, now it is criu 4.2"),
        (
            {"machine": replace(MACHINE, kernel="6.0")},
            "kernel: the snapshot has 6.0, now it is 6.1",
        ),
        (
            {"machine": replace(MACHINE, cpu_flags=("avx512f", "sse2"))},
            "CPU flags: gone since the snapshot: avx512f; new: avx2",
        ),
        (
            {"machine": replace(MACHINE, gpu_driver="580.1")},
            "GPU driver: the snapshot has 580.1, now it is none",
        ),
        (
            {"machine": replace(MACHINE, gpus=("H100 GPU-1",))},
            "GPUs: the snapshot has H100 GPU-1, now it is none",
        ),
    ],
)
def test_each_mismatch_has_its_own_message(change: dict[str, object], message: str):
    assert reasons(manifest(**change)) == [message]


@pytest.mark.parametrize(
    "launch",
    [
        replace(LAUNCH, argv=("engine", "--port", "2")),
        replace(LAUNCH, env={"A": "1"}),
        replace(LAUNCH, cwd="/tmp"),
    ],
)
def test_every_start_parameter_counts(launch: Launch):
    assert reasons(manifest(), launch) == ["engine arguments: the engine would be started differently now"]


def test_mismatches_are_listed_together():
    assert len(reasons(manifest(port=1, engine="vllm", tool="criu 3"))) == 3


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_manifest_is_found(position: int, bit: int):
    data = bytearray(encode(manifest()))
    data[position % len(data)] ^= 1 << bit
    try:
        assert decode(bytes(data)) == manifest()  # a blank that became another blank, at most
    except (ValueError, UnicodeDecodeError):
        pass


def image(path: Path) -> Path:
    path.mkdir()
    (path / "small").write_bytes(b"abc")
    (path / "empty").write_bytes(b"")
    (path / "pages").write_bytes(secrets.token_bytes(CHUNK_BYTES) + b"rest")
    return path


def test_files_are_as_they_were_recorded(tmp_path: Path):
    path = image(tmp_path / "image")
    records = record_files(path, GO)
    assert [(r.name, r.bytes, len(r.checks)) for r in records] == [
        ("empty", 0, 0),
        ("pages", CHUNK_BYTES + 4, 2),
        ("small", 3, 1),
    ]
    verify_files(path, records, GO)
    assert all(file.stat().st_mode & 0o077 == 0 for file in path.iterdir())


def test_zero_pages_take_no_room(tmp_path: Path):
    """Whole pages only, wherever they are; what is read is the same, and a flipped bit is noticed."""
    page, zeros = secrets.token_bytes(PAGE_BYTES), bytes(PAGE_BYTES)
    parts = [zeros * 3, page, zeros * 300, page[:-1], zeros, b"x", page, zeros * 2]
    (tmp_path / "image").mkdir()
    pages = tmp_path / "image" / "pages"
    pages.write_bytes(b"".join(parts) + bytes(7))
    before = pages.read_bytes()
    records = record_files(tmp_path / "image", GO)
    # Besides the tail and the pages with something in them.
    assert pages.read_bytes() == before and stored_bytes(pages) == 5 * PAGE_BYTES
    verify_files(tmp_path / "image", records, GO)
    flip(pages, PAGE_BYTES)
    with pytest.raises(SnapshotRefused, match="pages is damaged after byte 0"):
        verify_files(tmp_path / "image", records, GO)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "small").write_bytes(b"abd"), "small is damaged after byte 0"),
        (lambda p: (p / "small").write_bytes(b"ab"), "small has 2 bytes instead of 3"),
        (lambda p: (p / "empty").unlink(), "empty has no bytes instead of 0"),
        (lambda p: flip(p / "pages", CHUNK_BYTES), f"pages is damaged after byte {CHUNK_BYTES}"),
    ],
)
def test_damage_is_named_by_file_and_place(tmp_path: Path, damage, message: str):
    store = SnapshotStore(root=tmp_path, tier=Tier.FROZEN)
    draft = store.begin(ReplicaId("m"), 1)
    draft.image.rmdir()
    image(draft.image)
    about = store.commit(draft, manifest(replica=ReplicaId("m"), generation=1), GO)
    damage(draft.final / "image")
    with pytest.raises(SnapshotRefused, match=message):
        store.verify(draft, about.files, GO)


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_an_image_is_done_while_it_grows(tmp_path: Path, key: bytes | None):
    """All but the last chunk, which may not be whole; what is sealed leaves the memory at once."""
    memory = tmp_path / "memory"
    memory.mkdir()
    sealer = Sealer(key=key) if key else None
    store = SnapshotStore(root=tmp_path / "root", tier=Tier.FROZEN, sealer=sealer, memory=memory)
    draft, stop, pages = store.begin(ReplicaId("m"), 1), threading.Event(), secrets.token_bytes(CHUNK_BYTES)
    with ThreadPoolExecutor(1) as pool, (draft.image / "pages-1.img").open("wb") as file:
        following = pool.submit(store.follow, draft, stop, behind=lambda count: None)
        try:
            for number in range(3):
                file.write(pages + bytes(CHUNK_BYTES))
                file.flush()
                wait_until(lambda number=number: len(draft.done) == 2 * number + 1)
        finally:
            stop.set()
        following.result()
    left = stored_bytes(draft.image / "pages-1.img")
    assert left == (CHUNK_BYTES if key else 3 * CHUNK_BYTES + CHUNK_BYTES), "zeros are holes"
    done = store.commit(draft, manifest(replica=ReplicaId("m"), generation=1), GO)
    parked = replace(done.parked(), path=str(draft.final))
    assert woken(store, parked)["pages-1.img"] == (pages + bytes(CHUNK_BYTES)) * 3


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), Stopped()])
def test_a_failing_follower_lets_criu_go_on(tmp_path: Path, fault: Exception):
    """What was done beside it is kept: a chunk that was sealed is a hole, and must not be sealed again."""
    (tmp_path / "pages-1.img").write_bytes(bytes(2 * CHUNK_BYTES + 1))
    told: list[int] = []
    failed = threading.Event()

    def work(chunk: Chunk) -> int:
        if chunk.index == 1:
            failed.set()
            raise fault
        failed.wait()
        return 7

    done: dict[Chunk, int] = {}
    follow(tmp_path, work, done, GO, behind=told.append)
    assert [*map(max, [told]), told[-1]] == [2 * CHUNK_BYTES, 0]
    assert {chunk.index: result for chunk, result in done.items()} == {0: 7}


def test_what_waits_is_told_while_it_waits(tmp_path: Path):
    told, answer, stop, done = [0], threading.Event(), threading.Event(), dict[Chunk, int]()
    with ThreadPoolExecutor(1) as pool, (tmp_path / "pages-1.img").open("wb") as file:
        following = pool.submit(follow, tmp_path, lambda chunk: answer.wait(), done, stop, behind=told.append)
        try:
            for number in range(1, 9):
                file.write(bytes(CHUNK_BYTES + (number == 1)))
                file.flush()
                wait_until(lambda number=number: told[-1] == number * CHUNK_BYTES)
            answer.set()
            wait_until(lambda: told[-1] == 0)
        finally:
            answer.set()
            stop.set()
        following.result()
    assert len(done) == 8


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_reading_stops_when_told(tmp_path: Path):
    path = image(tmp_path / "image")
    records = record_files(path, GO)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        verify_files(path, records, stop)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(sizes=st.lists(st.integers(0, 70), min_size=1, max_size=4))
def test_sealing_works_for_every_size(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]):
    with pytest.MonkeyPatch.context() as patch:
        # Chunks of 16 bytes, so that a few bytes are many chunks.
        for module in ("sealing", "image_files"):
            patch.setattr(f"poorwill.tiers.snapshots.{module}.CHUNK_BYTES", 16)
        plain, sealed, again = (tmp_path_factory.mktemp(name) for name in ("p", "s", "a"))
        for number, size in enumerate(sizes):
            (plain / f"f{number}").write_bytes(secrets.token_bytes(size))
        sealer = Sealer(key=b"k" * 32)
        sealing = sealer.sealing(plain, sealed, about="x")
        contents = {file.name: file.read_bytes() for file in plain.iterdir()}
        sealing.finish((), GO)
        image = sealer.open(sealed, salt=sealing.salt, about="x")
        image.unseal(image.sizes, again, GO)
        assert {file.name: file.read_bytes() for file in again.iterdir()} == contents


@pytest.mark.parametrize("how", ["swap", "flip", "truncate", "rename", "about", "salt", "key"])
def test_a_tampered_file_does_not_unseal(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    for module in ("sealing", "image_files"):
        monkeypatch.setattr(f"poorwill.tiers.snapshots.{module}.CHUNK_BYTES", 16)
    plain, sealed, again = (tmp_path / name for name in ("p", "s", "a"))
    for path in (plain, sealed, again):
        path.mkdir()
    (plain / "f").write_bytes(secrets.token_bytes(40))
    sealing = Sealer(key=b"k" * 32).sealing(plain, sealed, about="x")
    sealing.finish((), GO)
    data = bytearray((sealed / "f").read_bytes())
    if how == "swap":
        data[:32], data[32:64] = data[32:64], data[:32]
    elif how == "flip":
        data[5] ^= 1
    elif how == "truncate":
        data = data[:64]
    (sealed / "f").write_bytes(data)
    if how == "rename":
        (sealed / "f").rename(sealed / "g")
    with pytest.raises(SealBroken):
        image = Sealer(key=b"x" * 32 if how == "key" else b"k" * 32).open(
            sealed,
            salt=b"t" * 16 if how == "salt" else sealing.salt,
            about="y" if how == "about" else "x",
        )
        image.unseal(image.sizes, again, GO)


def test_keys_are_base64_or_hexadecimal():
    key = secrets.token_bytes(32)
    assert Sealer.from_text(key.hex() + "\n", source="KEY").key == key
    assert Sealer.from_text(base64.b64encode(key).decode(), source="KEY").key == key
    for text in ("", "short", key.hex()[2:], "*" * 44):
        with pytest.raises(OperatorFault, match="KEY holds no key of 32 bytes"):
            Sealer.from_text(text, source="KEY")
    assert key.hex() not in repr(Sealer(key=key)) and str(key) not in repr(Sealer(key=key))


# the store


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(root=tmp_path / "snapshots", tier=Tier.FROZEN)


def put(store: SnapshotStore, generation: int, size: int = 100, replica: str = "m/1") -> Parked:
    draft = store.begin(ReplicaId(replica), generation)
    (draft.image / "pages").write_bytes(secrets.token_bytes(size))
    kept = store.commit(draft, manifest(generation=generation, replica=ReplicaId(replica)), GO)
    return Parked(
        replica=kept.replica,
        generation=generation,
        tier=Tier.FROZEN,
        path=str(draft.final),
        image_bytes=kept.image_bytes,
    )


def test_a_draft_is_no_snapshot(store: SnapshotStore):
    draft = store.begin(ReplicaId("m/1"), 1)
    (draft.image / "pages").write_bytes(b"x")
    assert store.found() == [] and store.leftovers() == []
    other = SnapshotStore(root=store.root, tier=Tier.FROZEN)
    assert other.leftovers() == [draft.directory]
    store.abandon(draft)
    store.abandon(draft)
    assert not draft.directory.exists() and other.leftovers() == []


def test_replica_names_do_not_escape_the_store(store: SnapshotStore):
    parked = put(store, 1, replica="../../etc/passwd")
    assert Path(parked.path or "").is_relative_to(store.root)
    (found,) = store.found()
    assert found.replica == "../../etc/passwd" and found.parked == replace(
        parked, image_bytes=found.image_bytes
    )


def test_an_image_is_claimed_once(store: SnapshotStore):
    kept = store.manifest(put(store, 4))
    store.claim(kept)
    with pytest.raises(SnapshotRefused, match="generation 4 of replica m/1 was already woken"):
        store.claim(kept)
    store.release(kept)
    store.claim(kept)
    old = replace(kept, generation=3)
    with pytest.raises(SnapshotRefused, match="already woken"):
        store.claim(old)
    store.claim(replace(kept, generation=5))
    with pytest.raises(SnapshotRefused, match="already woken"):
        store.claim(kept)


def test_a_new_ledger_wakes_its_own_images(store: SnapshotStore):
    store.claim(store.manifest(put(store, 9)))
    new = store.manifest(put(store, 1))
    store.claim(new)
    with pytest.raises(SnapshotRefused, match=r"generation 1 .* was already woken"):
        store.claim(new)


@pytest.mark.parametrize("damage", ["{", "[]", '{"manifest": 1}', '{"manifest": "{}", "crc32": 0}'])
def test_an_unreadable_manifest_is_listed(store: SnapshotStore, damage: str):
    parked = put(store, 1)
    (Path(parked.path or "") / "manifest.json").write_text(damage)
    with pytest.raises(SnapshotRefused, match="cannot be used"):
        store.manifest(parked)
    (found,) = store.found()
    assert found.generation == 1
    store.discard(parked)
    assert store.found() == []


def test_room_is_made_by_worth_of_a_byte(
    store: SnapshotStore,
):
    log = KeptLog()
    worth = {"big": 10.0, "small": 5.0, "own": 100.0}
    put(store, 1, 3_000_000, "big")
    put(store, 1, 1_000_000, "small")
    put(store, 1, 1_000_000, "own")
    space = Space(
        log=log,
        quota_bytes=6_000_000,
        value=lambda replica, tier: Value(worth=worth[replica]),
    )
    space.make_room(store, 1_500_000, replica=ReplicaId("own"))
    assert {found.replica for found in store.found()} == {"big", "small"}
    space.make_room(store, 3_500_000, replica=ReplicaId("own"))
    assert {found.replica for found in store.found()} == {"small"}
    with pytest.raises(DriverError, match="exceeds the quota"):
        space.make_room(store, 6_500_000, replica=ReplicaId("own"))
    assert {found.replica for found in store.found()} == {"small"}
    assert [line[1] for line in log.lines] == ["snapshot evicted to make room"] * 2


def test_nothing_is_evicted_in_vain(store: SnapshotStore):
    put(store, 1, 1_000_000)
    with pytest.raises(DriverError, match="no room for a snapshot"):
        Space(log=KeptLog()).make_room(store, 10**18, replica=ReplicaId("x"))
    assert len(store.found()) == 1


def test_what_is_being_parked_is_not_evicted(store: SnapshotStore):
    """Its image may be whole already while nobody knows: the next wake would not find it."""
    a, b = ReplicaId("a"), ReplicaId("b")
    space = Space(log=KeptLog(), quota_bytes=2_500_000)
    space.make_room(store, 1_000_000, replica=a)
    put(store, 1, 1_000_000, "a")
    with pytest.raises(DriverError, match="being written"):
        space.make_room(store, 2_000_000, replica=b)
    assert left(store) == {"a"}
    space.settle(a)
    space.make_room(store, 2_000_000, replica=b)
    assert left(store) == set()


@pytest.fixture
def stores(tmp_path: Path) -> tuple[SnapshotStore, SnapshotStore]:
    frozen, suspended = Tier.FROZEN, Tier.SUSPENDED
    return (
        SnapshotStore(root=tmp_path / frozen, tier=frozen),
        SnapshotStore(root=tmp_path / suspended, tier=suspended),
    )


def left(*stores: SnapshotStore) -> set[str]:
    return {found.replica for store in stores for found in store.found()}


def test_one_quota_bounds_all_tiers(stores: tuple[SnapshotStore, SnapshotStore]):
    frozen, suspended = stores
    worth = {"guest": 1.0, "process": 2.0, "new": 1.0}
    put(suspended, 1, 3_000_000, "guest")
    put(frozen, 1, 1_000_000, "process")
    space = Space(
        log=KeptLog(),
        quota_bytes=5_000_000,
        stores=stores,
        value=lambda replica, tier: Value(worth=worth[replica]),
    )
    space.make_room(frozen, 900_000, replica=ReplicaId("new"))
    assert left(*stores) == {"guest", "process"}
    space.make_room(frozen, 1_500_000, replica=ReplicaId("new"))
    assert left(*stores) == {"process"}, "the other tier's, worth less for each byte"


def test_parks_do_not_share_promised_room(
    stores: tuple[SnapshotStore, SnapshotStore],
):
    frozen, suspended = stores
    put(frozen, 1, 2_000_000, "old")
    space = Space(log=KeptLog(), quota_bytes=5_000_000, stores=stores)
    space.make_room(frozen, 2_500_000, replica=ReplicaId("one"))
    assert left(*stores) == {"old"}
    space.make_room(suspended, 2_000_000, replica=ReplicaId("two"))
    assert left(*stores) == set(), "what the first one was promised is not there yet, but taken"
    with pytest.raises(DriverError, match="no room"):
        space.make_room(suspended, 2_000_000, replica=ReplicaId("three"))
    space.settle(ReplicaId("one"))
    space.make_room(suspended, 2_000_000, replica=ReplicaId("three"))


def test_priority_protects_a_snapshot(store: SnapshotStore):
    values = {
        "high": Value(priority=1, worth=0.001),
        "low": Value(priority=0, worth=1000.0),
        "stranger": Value(priority=float("-inf"), worth=10**6),
    }
    for name in values:
        put(store, 1, 1_000_000, name)
    space = Space(log=KeptLog(), quota_bytes=3_500_000, value=lambda replica, tier: values[replica])
    space.make_room(store, 1_400_000, replica=ReplicaId("low"))
    assert left(store) == {"high", "stranger"}, "its own older one first"
    space.make_room(store, 2_400_000, replica=ReplicaId("low"))
    assert left(store) == {"high"}
    with pytest.raises(DriverError, match=r"no room .* beside snapshots of a higher priority"):
        space.make_room(store, 3_000_000, replica=ReplicaId("low"))
    space.settle(ReplicaId("low"))
    space.make_room(store, 3_000_000, replica=ReplicaId("high"))
    assert left(store) == set()


def test_an_image_in_use_is_not_evicted(store: SnapshotStore):
    waking, resting = put(store, 1, 1_000_000, "waking"), put(store, 1, 1_000_000, "resting")
    kept = store.manifest(waking)
    draft = store.begin_wake(kept)
    log = KeptLog()
    space = Space(log=log, quota_bytes=2_200_000)
    space.make_room(store, 1_000_000, replica=ReplicaId("new"))
    assert left(store) == {"waking", "resting"} and log.lines == []
    space.make_room(store, 2_000_000, replica=ReplicaId("new"))
    assert left(store) == {"waking"} and resting.replica == "resting"
    store.end_wake(kept, draft, spent=False)
    assert left(store) == {"waking"}


def test_a_lowered_quota_is_kept_at_start(store: SnapshotStore):
    for name in ("a", "b", "c"):
        put(store, 1, 1_000_000, name)
    worth = {"a": 1.0, "b": 3.0, "c": 2.0}
    space = Space(
        log=KeptLog(),
        quota_bytes=2_500_000,
        stores=(store,),
        value=lambda replica, tier: Value(worth=worth[replica]),
    )
    space.keep_to_quota()
    assert left(store) == {"b", "c"}
    space.keep_to_quota()
    Space(log=KeptLog(), stores=(store,)).keep_to_quota()
    assert left(store) == {"b", "c"}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    quota=st.integers(20, 120),
    asked=st.lists(st.integers(1, 60), min_size=1, max_size=6),
)
def test_the_total_stays_within_the_quota(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], quota: int, asked: list[int]
):
    unit = 1_000
    root = tmp_path_factory.mktemp("quota")
    stores = [SnapshotStore(root=root / tier, tier=tier) for tier in (Tier.FROZEN, Tier.SUSPENDED)]
    for number, size in enumerate(sizes):
        put(stores[number % 2], 1, size * unit, f"old{number}")
    # A manifest takes some bytes, too: sizes are taken for what they are on disk.
    space = Space(log=KeptLog(), quota_bytes=quota * unit, stores=stores)
    space.keep_to_quota()
    for number, size in enumerate(asked):
        store, replica = stores[number % 2], ReplicaId(f"new{number}")
        try:
            space.make_room(store, size * unit + 2_000, replica=replica)
        except DriverError:
            continue
        put(store, 1, size * unit, replica)
        space.settle(replica)
        total = sum(found.image_bytes for each in stores for found in each.found())
        assert total <= quota * unit


# sealed snapshots: whoever can write to the disk, but has no key


@pytest.fixture
def sealed(tmp_path: Path) -> SnapshotStore:
    memory = tmp_path / "memory"
    memory.mkdir()
    return SnapshotStore(
        root=tmp_path / "sealed", tier=Tier.FROZEN, sealer=Sealer(key=b"k" * 32), memory=memory
    )


def woken(store: SnapshotStore, parked: Parked) -> dict[str, bytes]:
    """The files of an image in the clear, as a wake would read them."""
    about = store.manifest(parked)
    draft = store.begin_wake(about)
    try:
        store.verify(draft, about.files, GO)
        if about.sealed:
            with store.opened(about, draft) as image:
                image.unseal(image.sizes, draft.image, GO)
        return {path.name: path.read_bytes() for path in draft.image.iterdir()}
    finally:
        store.end_wake(about, draft, spent=False)


def sealed_one(store: SnapshotStore, generation: int = 1, replica: str = "m") -> Parked:
    draft = store.begin(ReplicaId(replica), generation)
    for name, content in {"core.img": b"A" * 5000, "mm.img": b"B" * 1000, "zz.img": b"C" * 10}.items():
        (draft.image / name).write_bytes(content)
    done = store.commit(draft, manifest(replica=replica, generation=generation), GO)
    return replace(done.parked(), path=str(draft.final))


def forge(parked: Parked, **changes: object) -> None:
    """Write the manifest anew for what is there now, as somebody without the key can."""
    place = Path(parked.path or "")
    about = decode((place / "manifest.json").read_bytes())
    files = record_files(place / "image", GO)
    (place / "manifest.json").write_bytes(encode(replace(about, files=files, **changes)))  # type: ignore[arg-type]


def test_a_sealed_snapshot_wakes(sealed: SnapshotStore):
    assert woken(sealed, sealed_one(sealed))["mm.img"] == b"B" * 1000


@pytest.mark.parametrize("file", ["core.img", "mm.img", "zz.img"])
def test_a_file_left_out_is_noticed(sealed: SnapshotStore, file: str):
    parked = sealed_one(sealed)
    (Path(parked.path or "") / "image" / file).unlink()
    forge(parked)
    with pytest.raises(SnapshotRefused, match="signature is not of the configured key"):
        woken(sealed, parked)


def test_a_clear_image_is_refused_with_a_key(sealed: SnapshotStore):
    parked = sealed_one(sealed)
    for path in (Path(parked.path or "") / "image").iterdir():
        path.write_bytes(b"EVIL")
    forge(parked, sealed="")
    with pytest.raises(SnapshotRefused, match="not encrypted, though a key is configured"):
        woken(sealed, parked)


def test_another_manifest_is_refused(sealed: SnapshotStore):
    mine, other = sealed_one(sealed), sealed_one(sealed, replica="other")
    theirs = (Path(other.path or "") / "manifest.json").read_bytes()
    for change in ({"asleep": True}, {"pid": 1}, {"log_path": "/etc/passwd"}, {"extra": {"tcp": "within"}}):
        forge(mine, **change)
        with pytest.raises(SnapshotRefused, match="signature"):
            woken(sealed, mine)
    (Path(mine.path or "") / "manifest.json").write_bytes(theirs)
    with pytest.raises(SnapshotRefused, match="it is of replica other"):
        woken(sealed, mine)
