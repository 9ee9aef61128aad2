"""The store of snapshots: one directory for each, complete under its name or not there at all.

    ROOT/REPLICA/GENERATION/manifest.json, image/...     a snapshot, 0700 and 0600
    ROOT/REPLICA/.draft-*                                being written; renamed when durable
    ROOT/REPLICA/.wake-*                                 scratch of a wake under way
    ROOT/REPLICA/woken-GENERATION                        that image has been woken: never again

It hands an image out once. It knows nothing of processes; `space` decides what fits on the disk.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

from poorwill.core.launch import Parked
from poorwill.core.ports.driver import Found, SnapshotRefused
from poorwill.core.words import ReplicaId, Tier
from poorwill.hosts.files.names import file_name
from poorwill.tiers.snapshots.image_files import (
    Chunk,
    follow,
    record_files,
    recorded,
    stored_bytes,
    sync_directory,
    sync_file,
    verify_files,
)
from poorwill.tiers.snapshots.manifest import FileRecord, Manifest, decode, encode
from poorwill.tiers.snapshots.sealing import SealBroken, SealedImage, Sealer, Sealing

MANIFEST = "manifest.json"
MEMORY_DIRECTORY = Path("/dev/shm")
"""Where an image is in the clear while it is sealed or unsealed: memory, never the disk."""


def store_root(fleet_directory: Path, tier: Tier) -> Path:
    """Return where a fleet keeps the snapshots of one tier."""
    return fleet_directory / "snapshots" / tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A snapshot being written. `image` is where its files go, `work` is thrown away in the end."""

    directory: Path
    image: Path
    work: Path
    final: Path
    sealing: Sealing | None = None
    done: dict[Chunk, int] = field(default_factory=dict)
    """Chunks that were sealed or recorded while the image was written; see `image_files.follow`."""


@dataclass(slots=True, kw_only=True)
class SnapshotStore:
    """Snapshots of one tier under one root directory. Methods block unless they say otherwise."""

    root: Path
    tier: Tier
    sealer: Sealer | None = None
    memory: Path = MEMORY_DIRECTORY
    held: set[Path] = field(default_factory=set)
    """Directories in use by calls under way: neither evicted nor taken for leftovers."""

    # writing

    def begin(self, replica: ReplicaId, generation: int) -> Draft:
        """Make the directories of a new snapshot. Raises OSError, OperatorFault (no `cryptography`)."""
        home = self._home(replica)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix=f".draft-{generation}-", dir=home))
        self.held.add(directory)
        image, work, sealing = directory / "image", directory / "work", None
        image.mkdir(mode=0o700)
        work.mkdir(mode=0o700)
        if self.sealer is not None:
            stored, image = image, self._memory_for(directory)
            sealing = self.sealer.sealing(image, stored, about=_about(replica, generation))
        final = home / str(generation)
        return Draft(directory=directory, image=image, work=work, final=final, sealing=sealing)

    def follow(self, draft: Draft, stop: threading.Event, *, behind: Callable[[int], None]) -> None:
        """Seal or record what criu writes while it does; see `image_files.follow`."""
        work = draft.sealing.chunk if draft.sealing else recorded(draft.image, stop)
        follow(draft.image, work, draft.done, stop, behind=behind)

    def commit(self, draft: Draft, manifest: Manifest, stop: threading.Event) -> Manifest:
        """Make a draft durable and give it its name; return the manifest with sizes and check sums.

        Raises OSError (disk full, for example), image_files.Stopped.
        """
        stored = draft.directory / "image"
        if draft.sealing is not None:
            draft.sealing.finish(draft.done, stop)
            shutil.rmtree(draft.image)
            manifest = replace(manifest, sealed=draft.sealing.salt.hex())
        files = record_files(stored, stop, {} if draft.sealing else draft.done)
        image_bytes = sum(stored_bytes(stored / record.name) for record in files)
        manifest = replace(manifest, files=files, image_bytes=image_bytes)
        path = draft.directory / MANIFEST
        path.write_bytes(encode(manifest, self.sealer))
        sync_file(path)
        shutil.rmtree(draft.work)
        sync_directory(draft.directory)
        if draft.final.exists():
            shutil.rmtree(draft.final)
        # Generations start anew with a new ledger; this image has not been woken, whatever was before.
        for generation, claim in self._claims(manifest.replica):
            if generation >= manifest.generation:
                claim.unlink()
        draft.directory.rename(draft.final)
        sync_directory(draft.final.parent)
        self.held.discard(draft.directory)
        return manifest

    def abandon(self, draft: Draft) -> None:
        """Remove a draft that will not be finished. Idempotent; never raises."""
        shutil.rmtree(draft.directory, ignore_errors=True)
        if self.sealer is not None:
            shutil.rmtree(draft.image, ignore_errors=True)
        self.held.discard(draft.directory)
        _remove_if_empty(draft.final.parent)

    # reading

    def manifest(self, parked: Parked) -> Manifest:
        """Return a snapshot's manifest. Raises SnapshotRefused if it is missing or unreadable."""
        path = self._place(parked) / MANIFEST
        try:
            manifest = decode(path.read_bytes(), self.sealer)
            if manifest.replica != parked.replica:
                raise ValueError(f"it is of replica {manifest.replica}")
            return manifest
        except FileNotFoundError as error:
            raise SnapshotRefused(f"the snapshot {path.parent} is missing") from error
        except (OSError, ValueError) as error:
            raise SnapshotRefused(f"the manifest {path} cannot be used: {error}") from error

    def claim(self, manifest: Manifest) -> None:
        """Take the one right to wake this image. Raises SnapshotRefused if it was taken before."""
        home = self._home(manifest.replica)
        path = _woken(home / str(manifest.generation))
        try:
            if any(woken >= manifest.generation for woken, _ in self._claims(manifest.replica)):
                raise FileExistsError
            # O_EXCL decides between two wakers, whatever process they are in.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise SnapshotRefused(
                f"generation {manifest.generation} of replica {manifest.replica} was already woken"
            ) from None
        except OSError as error:
            raise SnapshotRefused(f"cannot mark {home} as woken: {error.strerror}") from error
        for woken, claim in self._claims(manifest.replica):
            if woken < manifest.generation:
                claim.unlink(missing_ok=True)
        sync_directory(home)

    def release(self, manifest: Manifest) -> None:
        """Give the right back: the image was not woken after all."""
        place = self._home(manifest.replica) / str(manifest.generation)
        _woken(place).unlink(missing_ok=True)

    def begin_wake(self, manifest: Manifest) -> Draft:
        """Return where the image will be in the clear, and a work directory. Raises SnapshotRefused."""
        home = self._home(manifest.replica)
        final = home / str(manifest.generation)
        try:
            directory = Path(tempfile.mkdtemp(prefix=f".wake-{manifest.generation}-", dir=home))
        except OSError as error:
            raise SnapshotRefused(f"cannot work in {home}: {error.strerror}") from error
        self.held |= {directory, final}
        image = self._memory_for(directory) if manifest.sealed else final / "image"
        return Draft(directory=directory, image=image, work=directory, final=final)

    @contextlib.contextmanager
    def opened(self, manifest: Manifest, draft: Draft, *, need_bytes: int = 0) -> Iterator[SealedImage]:
        """Open a sealed image, of which `need_bytes` will be wanted in the clear.

        Raises SnapshotRefused, also for what goes wrong with it in the block.
        """
        if self.sealer is None:
            raise SnapshotRefused("the snapshot is encrypted and there is no key")
        if need_bytes > free_bytes(self.memory):
            raise SnapshotRefused(f"{self.memory} has no room to decrypt the snapshot")
        stored, about = draft.final / "image", _about(manifest.replica, manifest.generation)
        try:
            sealed = self.sealer.open(stored, salt=bytes.fromhex(manifest.sealed), about=about)
            if {record.name for record in manifest.files} != set(sealed.sizes):
                raise SealBroken("its files are not those of the manifest")
            yield sealed
        except OSError as error:
            raise SnapshotRefused(f"the snapshot cannot be decrypted: {error}") from error

    def verify(self, draft: Draft, records: Sequence[FileRecord], stop: threading.Event) -> None:
        """Compare stored files with the manifest. Raises SnapshotRefused, image_files.Stopped."""
        try:
            self.refuse_other_sizes(draft, records)
            verify_files(draft.final / "image", records, stop)
        except OSError as error:
            raise SnapshotRefused(f"the snapshot cannot be used: {error}") from error

    def refuse_other_sizes(self, draft: Draft, records: Sequence[FileRecord]) -> None:
        """Raise SnapshotRefused if a file is missing or of another length: criu may wait for ever for it."""
        for one in records:
            path = draft.final / "image" / one.name
            size = path.stat().st_size if path.exists() else "no"
            if size != one.bytes:
                damage = f"{one.name} has {size} bytes instead of {one.bytes}"
                raise SnapshotRefused(f"the snapshot {draft.final} is damaged: {damage}")

    def end_wake(self, manifest: Manifest, draft: Draft, *, spent: bool) -> None:
        """Remove a wake's scratch, and the image if it is spent. Never raises."""
        shutil.rmtree(draft.directory, ignore_errors=True)
        if manifest.sealed:
            shutil.rmtree(draft.image, ignore_errors=True)
        if spent:
            shutil.rmtree(draft.final, ignore_errors=True)
        self.held -= {draft.directory, draft.final}

    # what there is

    def discard(self, parked: Parked) -> None:
        """Remove a snapshot. Idempotent."""
        place = self._place(parked)
        if place not in self.held:
            shutil.rmtree(place, ignore_errors=True)
            _remove_if_empty(place.parent)

    def found(self) -> list[Found]:
        """Return every complete snapshot that was not woken yet, readable or not."""
        return [self._found(path) for path in self._snapshots() if not _woken(path).exists()]

    def leftovers(self) -> list[Path]:
        """Return the scratch directories and spent images that no call of this store is using."""
        scratch = [*self.root.glob("*/.draft-*"), *self.root.glob("*/.wake-*")]
        spent = [path for path in self._snapshots() if _woken(path).exists()]
        return [path for path in (*scratch, *spent) if path not in self.held]

    def remove_leftover(self, directory: Path) -> None:
        """Remove one of `leftovers`, with what it has in memory. Never raises."""
        shutil.rmtree(memory_for(self.memory, directory), ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)

    def _found(self, path: Path) -> Found:
        parked = Parked(replica=_replica_of(path), generation=int(path.name), tier=self.tier, path=str(path))
        parked = replace(parked, image_bytes=tree_bytes(path))
        return Found(
            replica=parked.replica,
            generation=parked.generation,
            tier=self.tier,
            what=str(path),
            image_bytes=parked.image_bytes,
            parked=parked,
        )

    def _snapshots(self) -> list[Path]:
        return sorted(path for path in self.root.glob("*/*") if path.name.isdecimal())

    def _home(self, replica: ReplicaId) -> Path:
        return self.root / file_name(replica)

    def _place(self, parked: Parked) -> Path:
        return self._home(parked.replica) / str(parked.generation)

    def _claims(self, replica: ReplicaId) -> list[tuple[int, Path]]:
        found = []
        for path in self._home(replica).glob("woken-*"):
            number = path.name.removeprefix("woken-")
            if number.isdecimal():
                found.append((int(number), path))
        return sorted(found)

    def _memory_for(self, directory: Path) -> Path:
        # The name ties it to its draft, so that a leftover is found again after a crash.
        path = memory_for(self.memory, directory)
        path.mkdir(mode=0o700)
        return path


def _replica_of(path: Path) -> ReplicaId:
    """Return the replica of a snapshot's directory: by its name, or by its manifest if the name is cut."""
    name = unquote(path.parent.name)
    if "~" in path.parent.name:
        with contextlib.suppress(OSError, ValueError):
            name = decode((path / MANIFEST).read_bytes()).replica
    return ReplicaId(name)


def free_bytes(path: Path) -> int:
    """Return what an ordinary user may still write to a path's file system."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def memory_for(memory: Path, directory: Path) -> Path:
    """Return where the clear image of a draft or wake lies in memory."""
    return memory / f"poorwill-{hashlib.sha256(bytes(directory)).hexdigest()[:24]}"


def tree_bytes(path: Path) -> int:
    """Return what all files under a directory take on the disk; those that vanish meanwhile count nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += stored_bytes(os.path.join(folder, name))
    return total


def _woken(path: Path) -> Path:
    return path.parent / f"woken-{path.name}"


def _about(replica: ReplicaId, generation: int) -> str:
    return f"{replica}\0{generation}"


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()
