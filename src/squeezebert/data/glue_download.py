"""Fetch the official GLUE files: transfers go on where they broke off, and nothing unchecked is used.

Addresses, sizes and SHA-256 sums are those that the hub's own loader recorded (huggingface/datasets
``datasets/glue/glue.py`` and ``dataset_infos.json``); they are known for every file.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from squeezebert import __version__
from squeezebert.data.tasks import GLUE, Task
from squeezebert.errors import InputError
from squeezebert.files import atomic_folder, read_json, write_json
from squeezebert.lines import numbered_lines

BASE_URL = "https://dl.fbaipublicfiles.com"


@dataclass(frozen=True, slots=True)
class Source:
    """A file to fetch."""

    path: str
    """Path below the base address."""
    size: int
    """Bytes."""
    sha256: str
    """SHA-256 sum, hexadecimal."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return PurePosixPath(self.path).name


SOURCES: dict[str, tuple[Source, ...]] = {
    "cola": (
        Source("glue/data/CoLA.zip", 376_971, "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff"),
    ),
    "sst2": (
        Source("glue/data/SST-2.zip", 7_439_277, "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"),
    ),
    # GLUE may not distribute MRPC: the sentences come from SentEval's copy, and GLUE adds the ids of its dev set.
    "mrpc": (
        Source(
            "senteval/senteval_data/msr_paraphrase_train.txt",
            1_047_044,
            "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
        ),
        Source(
            "senteval/senteval_data/msr_paraphrase_test.txt",
            441_275,
            "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
        ),
        Source("glue/data/mrpc_dev_ids.tsv", 6_222, "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7"),
    ),
    "stsb": (
        Source("glue/data/STS-B.zip", 802_872, "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85"),
    ),
    "qqp": (
        Source(
            "glue/data/QQP-clean.zip", 41_696_084, "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0"
        ),
    ),
    "mnli": (
        Source("glue/data/MNLI.zip", 312_783_507, "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633"),
    ),
    "qnli": (
        Source("glue/data/QNLIv2.zip", 10_627_589, "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5"),
    ),
    "rte": (Source("glue/data/RTE.zip", 697_150, "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee"),),
    "wnli": (Source("glue/data/WNLI.zip", 28_999, "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46"),),
    "ax": (Source("glue/data/AX.tsv", 222_257, "0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd"),),
}
"""Task name -> the files it is made from."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the transfer of one file has come."""

    file: str
    """Name of the file."""
    done: int
    """Bytes at hand."""
    total: int
    """Bytes of the whole file."""
    bytes_per_second: float
    """Speed since this transfer began."""

    @property
    def seconds_left(self) -> float:
        """Time to the end at this speed; infinite before the first byte."""
        return (self.total - self.done) / self.bytes_per_second if self.bytes_per_second else float("inf")


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one task."""

    task: Task
    folder: Path
    """The task's folder in the official layout."""
    was_there: bool
    """Whether an earlier call had fetched it, so that nothing was transferred."""


def download(
    tasks: Sequence[Task], out_dir: str | Path, *, base_url: str = BASE_URL, progress: Report | None = None
) -> Iterator[Fetched]:
    """Fetch tasks into ``out_dir`` in the official layout, one folder each, and yield each when it is whole.

    A transfer that breaks off leaves a ``.part`` file, with which the next call goes on. A folder appears when its
    files have been checked; the archive is removed then.

    Args:
        tasks: Rows of :data:`squeezebert.data.tasks.GLUE`; empty: all of them.
        out_dir: The GLUE root.
        base_url: Address of a server with the same paths.
        progress: Called after every block.

    Raises:
        InputError: The server cannot be reached or lacks a file, or a file is not the official one (it is removed
            then); or a task's folder exists already and this function did not make it.
        OSError: ``out_dir`` cannot be written; the disk is full.
    """
    if not base_url.startswith(("http://", "https://")):
        raise InputError(f"--base-url {base_url}: not an address that starts with http:// or https://")
    out_dir = Path(out_dir)
    for task in tasks or GLUE.values():
        folder = out_dir / task.folder
        if folder.exists():
            if not _is_fetched(task, folder):
                raise InputError(
                    f"{folder} exists and is not from this command; move it away, or choose another --output"
                )
            yield Fetched(task, folder, was_there=True)
            continue
        out_dir.mkdir(parents=True, exist_ok=True)
        files = [_fetch(source, base_url.rstrip("/"), out_dir, progress) for source in SOURCES[task.name]]
        with atomic_folder(folder) as target:
            _BUILDERS.get(task.name, _unpack)(task, files, target)
            write_json(target / _RECEIPT, _receipt(task))
        for file in files:
            file.unlink()
        yield Fetched(task, folder, was_there=False)


_RECEIPT = "SOURCE.json"


def _receipt(task: Task) -> list[dict[str, Any]]:
    """What a finished folder says of its origin."""
    return [
        {"path": source.path, "bytes": source.size, "sha256": source.sha256} for source in SOURCES[task.name]
    ]  # fmt: skip


def _is_fetched(task: Task, folder: Path) -> bool:
    receipt = folder / _RECEIPT
    return (
        receipt.is_file()
        and read_json(receipt) == _receipt(task)
        and all((folder / split.file).is_file() for split in task.splits.values())
    )


class _BrokenOffError(Exception):
    """The transfer stopped for a reason that may pass."""


_PAUSES = (1.0, 2.0, 4.0)
"""Seconds to wait after the first, second, ... failure in a row without a byte gained."""


def _fetch(source: Source, base_url: str, folder: Path, progress: Report | None) -> Path:
    """Transfer one file, with several attempts, and check it. Returns its path."""
    url = f"{base_url}/{source.path}"
    part = folder / f"{source.name}.part"
    failures = 0
    while (before := _size(part)) != source.size:
        try:
            _transfer(url, part, source, progress)
        except _BrokenOffError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures > len(_PAUSES):
                kept = f"; {_size(part):,} of {source.size:,} bytes are kept, run the command again to go on"
                raise InputError(f"{url}: {error}{kept if _size(part) else '; check the network'}") from None
            time.sleep(_PAUSES[failures - 1])
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != source.sha256:
        part.unlink()
        raise InputError(
            f"{url}: wrong SHA-256 {digest.hexdigest()}, the official file has {source.sha256}; "
            "the file was removed, try again or from another --base-url"
        )
    return part


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(url: str, part: Path, source: Source, progress: Report | None) -> None:
    """Fetch what ``part`` still lacks.

    Raises:
        InputError: The server's answer is final: no such file, or a file of another size.
        _BrokenOffError: Another attempt may do better.
    """
    have = _size(part)
    headers = {"User-Agent": f"squeezebert/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    with _network(url, part):
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)
    with response:
        # A server without ranges answers 200 and sends the whole file.
        start = have if response.status == 206 else 0
        if response.length is not None and start + response.length != source.size:
            part.unlink(missing_ok=True)
            raise InputError(
                f"{url}: {start + response.length:,} bytes, the official file has {source.size:,}; check --base-url"
            )
        done, began = start, time.monotonic()
        with part.open("ab" if start else "wb") as file:
            while done < source.size:
                with _network(url, part):
                    block = response.read(min(1 << 16, source.size - done))
                if not block:
                    raise _BrokenOffError("the connection was closed too early")
                file.write(block)
                done += len(block)
                if progress is not None:
                    speed = (done - start) / max(time.monotonic() - began, 1e-9)
                    progress(Progress(source.name, done, source.size, speed))


@contextmanager
def _network(url: str, part: Path) -> Iterator[None]:
    """Sort the failures of the network into those that are final and those that may pass."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            # The server's file ends before ours does, so ours is of another file.
            part.unlink(missing_ok=True)
        elif error.code < 500 and error.code not in (408, 429):
            raise InputError(f"{url}: HTTP {error.code} {error.reason}; check --base-url") from None
        raise _BrokenOffError(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _BrokenOffError(f"cannot connect ({error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(f"the connection broke off ({error or type(error).__name__})") from None


def _unpack(task: Task, files: Sequence[Path], target: Path) -> None:
    """Take the task's own files out of its archive, by name, so that no other name in it matters."""
    (archive,) = files
    try:
        with zipfile.ZipFile(archive) as members:
            for split in task.splits.values():
                with members.open(f"{task.folder}/{split.file}") as packed, (target / split.file).open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive}: this is not GLUE's archive of {task.name} ({error}); remove it") from None


def _copy(task: Task, files: Sequence[Path], target: Path) -> None:
    """The diagnostics are one plain file."""
    shutil.copyfile(files[0], target / task.splits["test"].file)


def _build_mrpc(task: Task, files: Sequence[Path], target: Path) -> None:
    """Divide Microsoft's training sentences into GLUE's train and dev; number the test sentences, without labels."""
    train, test, dev_ids = files
    dev = {tuple(line.split("\t")[:2]) for _, line in numbered_lines(dev_ids)}
    splits = {
        name: (target / split.file).open("w", encoding="utf-8", newline="\n") for name, split in task.splits.items()
    }
    try:
        for number, line in numbered_lines(train):
            if number == 1:
                splits["train"].write(f"{line}\n")
                splits["validation"].write(f"{line}\n")
                continue
            splits["validation" if tuple(line.split("\t")[1:3]) in dev else "train"].write(f"{line}\n")
        for number, line in numbered_lines(test):
            first = "index" if number == 1 else number - 2
            splits["test"].write(f"{first}\t{line.partition(chr(9))[2]}\n")
    finally:
        for file in splits.values():
            file.close()


_BUILDERS: dict[str, Callable[[Task, Sequence[Path], Path], None]] = {"mrpc": _build_mrpc, "ax": _copy}
"""How a task's folder is made, where it is not unpacked from an archive."""
