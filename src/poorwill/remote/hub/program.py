"""Downloads a model with huggingface_hub, as a child process that can be ended at any time.

It prints one JSON object a line: `{"need": BYTES, "free": BYTES, ...}` once, `{"done": BYTES}` as it goes on,
`{"path": ...}` at the end, or `{"fault": ..., "hint": ...}`. What was downloaded when it is ended is kept and
continued: huggingface_hub itself begins a file anew, so the large ones are fetched here into a file with a
name that stays, checked against the hub's SHA-256, and handed to it as a finished blob.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers
from tqdm import tqdm

from poorwill.remote.hub.choose import choose_all, choose_gguf

_SPARE_BYTES = 256 * 2**20
_TELL_BYTES = 8 * 2**20
_ATTEMPTS = 3


def tell(**facts: object) -> None:
    """Print one fact."""
    print(json.dumps(facts), flush=True)


def fail(what: object, hint: str) -> NoReturn:
    """Print why, and end."""
    tell(fault=" ".join(str(what).split())[:300], hint=hint)
    sys.exit(1)


class DownloadCount(tqdm):  # type: ignore[misc]
    """Tells how much there is, instead of drawing a bar."""

    done = 0
    told = 0

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs["disable"] = True
        super().__init__(*args, **kwargs)

    def update(self, n: float | None = 1) -> bool | None:
        """DownloadCount bytes."""
        DownloadCount.done += int(n or 0)
        if DownloadCount.done - DownloadCount.told >= _TELL_BYTES:
            DownloadCount.told = DownloadCount.done
            tell(done=DownloadCount.done)
        return None


def main(repo: str, revision: str, which: str, gguf: str, cache: str) -> None:
    """Download the files that a name means."""
    try:
        info = HfApi(endpoint=constants.ENDPOINT).model_info(repo, revision=revision, files_metadata=True)
        sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
        sums = {one.rfilename: one.lfs.sha256 for one in info.siblings or () if one.lfs}
        files = choose_gguf(sizes, which) if gguf else choose_all(sizes)
        if not files:
            fail(f"{repo} has no {which or 'GGUF'} file", f"it has: {', '.join(sorted(sizes)[:12])}")
        home = Path(cache, f"models--{repo.replace('/', '--')}")
        blobs = home / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        missing = [file for file in files if not (home / "snapshots" / str(info.sha) / file).exists()]
        need = sum(sizes[f] - _held(blobs, sums.get(f, "")) for f in missing)
        free = shutil.disk_usage(cache).free
        full = need + _SPARE_BYTES > free
        tell(need=need, free=free, files=len(missing), full=full)
        if full:
            fail(
                f"{need:,} bytes are to be downloaded and {free:,} are free in {cache}",
                "poorwill models shows what lies there and removes it; HF_HUB_CACHE names another place",
            )
        for file in files:
            if file in missing and file in sums:
                _large(repo, str(info.sha), file, sizes[file], sums[file], blobs)
            # With the name of the revision, so that `refs` says which commit it was.
            hf_hub_download(repo, file, revision=revision, cache_dir=cache, tqdm_class=DownloadCount)
    except GatedRepoError as error:
        fail(error, f"ask for access at {constants.ENDPOINT}/{repo}, and set HF_TOKEN")
    except (RepositoryNotFoundError, RevisionNotFoundError):
        fail(f"there is no {repo} at {revision}", "look at its name; a private one needs HF_TOKEN")
    except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        fail(f"{repo}: {error}", "what was downloaded is kept; the next attempt goes on there")
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):  # httpx2 from huggingface_hub 2 on
            raise
        fail(
            f"no answer from {constants.ENDPOINT}: {error}",
            "HF_ENDPOINT names another; HF_HUB_OFFLINE=1 uses what is on disk; what was downloaded is kept",
        )
    tell(done=DownloadCount.done)
    snapshot = home / "snapshots" / str(info.sha)
    tell(path=str(snapshot / files[0] if gguf else snapshot))


def _held(blobs: Path, checksum: str) -> int:
    """Return how many bytes of a file are there already."""
    for path in (blobs / checksum, _unfinished(blobs, checksum)):
        if checksum and path.is_file():
            return path.stat().st_size
    return 0


def _unfinished(blobs: Path, checksum: str) -> Path:
    return blobs / f"{checksum}.poorwill"


def _large(repo: str, commit: str, file: str, size: int, checksum: str, blobs: Path) -> None:
    """Fetch a file into the cache's blobs, going on where an earlier attempt ended; check it as a whole."""
    if not re.fullmatch(r"[0-9a-f]{64}", checksum):
        raise ValueError(f"{file} has an odd checksum")
    target, part = blobs / checksum, _unfinished(blobs, checksum)
    url = hf_hub_url(repo, file, revision=commit, endpoint=constants.ENDPOINT)
    for attempt in range(_ATTEMPTS):
        if target.exists():
            return
        with part.open("ab") as out:
            if out.tell() > size:
                out.truncate(0)
            headers = build_hf_headers(token=None)
            http_get(
                url,
                out,
                resume_size=out.tell(),
                headers=headers,
                expected_size=size,
                tqdm_class=DownloadCount,
            )
        if _sha256(part) == checksum:
            os.replace(part, target)
            return
        part.unlink()
        tell(damaged=file, attempt=attempt + 1)
    raise OSError(f"{file} does not have the checksum that the hub says, {_ATTEMPTS} times")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
