"""One run of the benchmark: make the files, start everyone, let them take turns, note times and memory."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from squeezebert.bench import cases, exports
from squeezebert.bench.contenders import Contender, choose, contenders, why_not
from squeezebert.bench.exports import Export
from squeezebert.bench.harness import Case, Worker, WorkerError, last_line, say, take_turns
from squeezebert.bench.runners import Job
from squeezebert.errors import InputError
from squeezebert.files import write_json
from squeezebert.model.config import SIZES
from squeezebert.tokenizer import Tokenizer

WARMUP = 3
"""Rounds over the shapes that are not counted."""
TEXT_ROUNDS = 3
"""Most rounds over a task's texts, which take long and scatter little."""
_KEEP_EVERY = 60.0  # seconds
_WARM = {"batch": 1, "tokens": 128}  # what a process has run when its memory is read
_BERT_VOCABULARY = 30522
TEXT = "a gripping, beautifully shot film"
"""What ``squeezebert classify`` is given."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure.

    Raises:
        InputError: A case is unknown, a number is out of range, or a task lacks its vocabulary.
    """

    cases: tuple[str, ...] = ()
    """Shapes and tasks; empty: the four shapes and, with a vocabulary and data, both tasks."""
    contenders: tuple[str, ...] = ()
    """Patterns of their keys; empty: everyone."""
    size: str = "base"
    """Size of SqueezeBERT, a key of :data:`squeezebert.model.config.SIZES`."""
    threads: int
    """Cores of every contender."""
    rounds: int = 20
    """Timed rounds."""
    data_dir: Path | None = None
    """Folder of the official GLUE files."""
    vocab: str | None = None
    """BERT's vocabulary: file, folder or hub id."""
    cache: Path
    """Folder where the peers' exported models are kept."""

    def __post_init__(self) -> None:
        if not self.cases:
            tasks = cases.TASKS if self.data_dir is not None and self.vocab is not None else ()
            object.__setattr__(self, "cases", (*cases.SHAPES, *tasks))
        cases.shapes(self.cases)
        if self.size not in SIZES:
            raise InputError(f"--size: {self.size!r} is unknown; use one of {', '.join(SIZES)}")
        for name in ("threads", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, not {getattr(self, name)}")
        for flag, value in (("--data-dir", self.data_dir), ("--vocab", self.vocab)):
            if value is None and self.tasks:
                raise InputError(f"--cases: {self.tasks[0]} is run on texts; give {flag}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The cases that are tasks."""
        return tuple(name for name in self.cases if name in cases.TASKS)


@dataclass
class Results:
    """What was measured."""

    contenders: list[Contender]
    """Those asked for, in the table's order."""
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Contender's key -> case -> seconds of each round."""
    texts: dict[str, int] = field(default_factory=dict)
    """Task -> number of its texts."""
    memory_mb: dict[str, float] = field(default_factory=dict)
    """Contender's key -> resident memory of its process, after a few runs of 1x128."""
    file_mb: dict[str, float] = field(default_factory=dict)
    """Contender's key -> size of the files it runs, where there are any."""
    classify_seconds: list[float] = field(default_factory=list)
    """Whole-process time of ``squeezebert classify`` with one text."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Contender's title -> why it is missing, or ended."""
    interrupted: bool = False
    """Whether Ctrl-C cut the run short."""


def bench(settings: Settings, keep: Callable[[Results], None] | None = None) -> Results:
    """Measure. Ctrl-C ends the run; what was measured until then is returned.

    Args:
        settings: What to measure.
        keep: Given what was measured so far, between two turns, about once a minute, in case the run is killed.

    Raises:
        InputError: A contender is unknown, nobody can run, or the task's files or the vocabulary cannot be read.
        KeyboardInterrupt: Ctrl-C came before anything was measured.
    """
    results = Results(choose(contenders(_instruction_sets()), settings.contenders))
    ready = []
    for contender in results.contenders:
        reason = why_not(contender)
        if reason is None:
            ready.append(contender)
        else:
            results.skipped[contender.title] = reason
    requests = cases.shapes(settings.cases)
    with tempfile.TemporaryDirectory(prefix="squeezebert-bench-") as temporary:
        folder = Path(temporary)
        tasks: dict[str, Case] = {}
        for task in settings.tasks:
            rows = cases.texts(task, settings.data_dir)
            write_json(folder / f"{task}.json", rows)
            tasks[task] = {"texts": str(folder / f"{task}.json")}
            results.texts[task] = len(rows)
        workers: list[Worker] = []
        try:
            models = _make_files(settings, ready, folder, results)
            for number, contender in enumerate([each for each in ready if each.key in models], start=1):
                say(f"starting {number} of {len(models)}: {contender.title}")
                job = _job(settings, contender, models[contender.key], folder)
                _start(job, folder, workers, results)
            if not workers:
                reasons = "; ".join(f"{title}: {reason}" for title, reason in results.skipped.items())
                raise InputError(f"nobody to measure ({reasons})")
            results.seconds = {worker.name: {} for worker in workers}
            _measure(workers, requests, settings.rounds, WARMUP, results, keep)
            if not results.interrupted:
                _measure(workers, tasks, min(settings.rounds, TEXT_ROUNDS), 0, results, keep)
            if not results.interrupted:
                _time_classify(settings, models, results)
        finally:
            for worker in workers:
                worker.close()
    return results


def _instruction_sets() -> list[str]:
    from squeezebert.runtime.engines.native import instruction_sets, library_path

    return [] if library_path() is None else instruction_sets()


def _make_files(settings: Settings, ready: list[Contender], folder: Path, results: Results) -> dict[str, str | None]:
    """Folder of the model of each contender whose files could be made; None: it builds its network itself."""
    size = settings.size
    if settings.vocab is None:
        tokenizer = exports.stand_in_tokenizer(min(SIZES[size].vocab_size, _BERT_VOCABULARY))
    else:
        tokenizer = Tokenizer.load(settings.vocab)
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    vocab_size = _padded(tokenizer.vocab_size)

    def own(kind: str, source: str) -> Export:
        return Export(
            kind=kind, size=size, vocab_size=vocab_size, target=str(folder / kind), source=str(folder / source)
        )

    chains = {}
    for contender in ready:
        chain = exports.plan(contender, size, vocab_size, settings.cache)
        if contender.ours:
            chain = [own("checkpoint", "tokenizer"), *([own("native", "checkpoint")] * (contender.stack == "native"))]
        chains[contender.key] = chain
    wanted = list(dict.fromkeys(export for chain in chains.values() for export in chain))
    missing = [export for export in wanted if not Path(export.target).is_dir()]
    failures: dict[Export, str] = {}
    for number, export in enumerate(missing, start=1):
        say(f"building {number} of {len(missing)}: {export.name}")
        failure = _make(export, settings.threads, folder / "build.log")
        if failure is not None:
            failures[export] = failure
    models: dict[str, str | None] = {}
    for contender in ready:
        chain = chains[contender.key]
        failed = next((failures[export] for export in chain if export in failures), None)
        if failed is not None:
            results.skipped[contender.title] = f"its files could not be made: {failed}"
            continue
        models[contender.key] = chain[-1].target if chain else None
        if chain:
            files = [file for file in Path(chain[-1].target).rglob("*") if file.is_file() and file.suffix != ".json"]
            results.file_mb[contender.key] = sum(file.stat().st_size for file in files) / 1e6
    return models


def _make(export: Export, threads: int, log: Path) -> str | None:
    """Make one export in a process of its own; returns what went wrong."""
    words = json.dumps(dataclasses.asdict(export))
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "squeezebert.bench.exports", words],
            stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=False,
        )  # fmt: skip
    return last_line(log, done.returncode) if done.returncode else None


def _padded(tokens: int) -> int:
    """Rows of a word embedding, as :func:`squeezebert.checkpoint.load` rounds them up."""
    return -(-tokens // 64) * 64


def _job(settings: Settings, contender: Contender, model: str | None, folder: Path) -> Job:
    tokenizer = str(folder / "tokenizer")
    vocab_size = _padded(Tokenizer.load(tokenizer).vocab_size)
    return Job(
        contender=contender, model=model, tokenizer=tokenizer, size=settings.size, vocab_size=vocab_size,
        threads=settings.threads,
    )  # fmt: skip


def _start(job: Job, folder: Path, workers: list[Worker], results: Results) -> None:
    """Start a contender, run it a few times, and read its memory."""
    key = job.contender.key
    command = [sys.executable, "-m", "squeezebert.bench.worker", json.dumps(dataclasses.asdict(job))]
    try:
        worker = Worker(key, command, job.threads, folder / f"{key}.log")
        workers.append(worker)
        for _ in range(WARMUP):
            worker.run(_WARM)
        memory = worker.run({"memory": True})
    except WorkerError as error:
        results.skipped[job.contender.title] = f"did not start: {error}"
        workers[:] = [each for each in workers if each.name != key]
        return
    if memory is not None:
        results.memory_mb[key] = memory


def _measure(
    workers: list[Worker],
    requests: Mapping[str, Case],
    rounds: int,
    warmup: int,
    results: Results,
    keep: Callable[[Results], None] | None,
) -> None:
    """Let the workers take turns; Ctrl-C ends it."""
    titles = {contender.key: contender.title for contender in results.contenders}

    def failed(worker: Worker, error: WorkerError) -> None:
        results.skipped[titles[worker.name]] = f"ended in the middle: {error}"
        workers.remove(worker)

    kept = time.monotonic()
    try:
        for name, case, seconds in take_turns(list(workers), requests, rounds, warmup, failed=failed):
            results.seconds[name].setdefault(case, []).append(seconds)
            if keep is not None and time.monotonic() - kept >= _KEEP_EVERY:
                keep(results)
                kept = time.monotonic()
    except KeyboardInterrupt:
        if not any(results.seconds.values()):
            raise
        results.interrupted = True


def _time_classify(settings: Settings, models: Mapping[str, str | None], results: Results) -> None:
    """Time the command line as a user starts it, with the native artifact."""
    model = next(
        (models[each.key] for each in results.contenders if each.stack == "native" and each.key in models), None
    )
    if model is None:
        return
    command = [
        sys.executable,
        "-m",
        "squeezebert",
        "classify",
        "--model",
        model,
        "--threads",
        str(settings.threads),
        TEXT,
    ]
    try:
        # The first, whose files are not in the system's cache yet, is not counted.
        for number in range(settings.rounds + 1):
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            elapsed = time.perf_counter() - start
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
                results.skipped["squeezebert classify"] = reason
                return
            if number:
                results.classify_seconds.append(elapsed)
    except KeyboardInterrupt:
        results.interrupted = True
