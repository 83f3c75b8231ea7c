"""Every export format of some checkpoints, and every form of the grouped layers in every runtime, measured in one run.

Each artifact is written by ``squeezebert export`` itself, read by ``squeezebert classify`` in a fresh process, and then
clocked in a process of its own, all artifacts of a checkpoint taking turns; with the forms, which are many, those of a
runtime. A format whose packages need an environment of their own is given that environment's Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squeezebert import artifact
from squeezebert.bench import cases
from squeezebert.bench.harness import Worker, WorkerError, last_line, say, take_turns
from squeezebert.bench.run import TEXT, WARMUP
from squeezebert.errors import InputError, require
from squeezebert.export.formats import CONVERTED, ENGINE, ENGINE_PRECISIONS, shipped_form
from squeezebert.export.stored import file_bytes
from squeezebert.files import read_json, write_text
from squeezebert.folder import read_config

PRECISIONS = dict.fromkeys(ENGINE, ENGINE_PRECISIONS) | {
    name: precisions for name, (precisions, _) in CONVERTED.items()
}
"""Format -> its precisions."""
WITH_FORMS = ("onnx", "openvino", "executorch", "litert")
"""Formats whose runtimes are at hand, so that the forms can be compared in them."""
FORMS = ("conv", "split", "bmm")
"""Of the grouped layers (:mod:`squeezebert.model.grouped`)."""
PEER = "BERT-base"
SHAPES = ("1x32", "1x128", "8x128")
_CHECKPOINT = (".json", ".safetensors", ".bin", ".txt")  # suffixes of what an export reads


@dataclass(frozen=True, kw_only=True)
class FormatSettings:
    """What to measure.

    Raises:
        InputError: A format, case or model is unknown, or a number out of range.
    """

    formats: tuple[str, ...] = ()
    """Keys of :data:`PRECISIONS`; empty: all."""
    models: tuple[str, ...]
    """Checkpoints of sequence classifiers, folders."""
    forms: bool = False
    """Compare the forms, too, beside BERT-base."""
    pythons: Mapping[str, str] = field(default_factory=dict)
    """Format -> Python of the environment that has its packages; this one's where not named."""
    cases: tuple[str, ...] = ()
    """Shapes; empty: :data:`SHAPES`."""
    threads: int
    """Cores of every contender."""
    rounds: int = 20
    """Timed rounds."""
    keep: Path | None = None
    """Folder for the artifacts, from which those of a former run are taken; None: a temporary one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", tuple(dict.fromkeys(self.formats)) or tuple(PRECISIONS))
        object.__setattr__(self, "cases", self.cases or SHAPES)
        for flag, names in (("formats", self.formats), ("python", self.pythons)):
            for name in names:
                if name not in PRECISIONS:
                    raise InputError(f"--{flag}: {name!r} is unknown; use some of {', '.join(PRECISIONS)}")
        if len(cases.shapes(self.cases)) < len(set(self.cases)):
            raise InputError("--cases: formats are compared on shapes, such as 1x128; leave out sst2 and qnli")
        for name in ("threads", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if not self.models:
            raise InputError("--models: name a checkpoint, or more, to export")
        if PEER in map(name_of, self.models):
            raise InputError(f"--models: a folder named {PEER} would be taken for the peer; give it another name")
        if len({name_of(model) for model in self.models}) < len(self.models):
            raise InputError("--models: the folders' names name the lines of the table; give each another")

    def python(self, format: str) -> str:
        """Python that has the format's packages."""
        return self.pythons.get(format, sys.executable)


def name_of(model: str) -> str:
    """Name of a checkpoint's folder, of which the path may say nothing, as ``.`` does."""
    return Path(model).absolute().name


@dataclass(kw_only=True)
class Line:
    """One artifact."""

    model: str
    """Name of the checkpoint's folder, or :data:`PEER`."""
    format: str
    precision: str
    form: str | None = None
    """Of the grouped layers; None: the engine's own, or BERT-base, which has none."""
    shipped: bool
    """Whether ``squeezebert export`` writes it so."""
    error: str | None = None
    """Why there is none, or why it could not be run."""
    beside: str | None = None
    """Of BERT-base: the model beside which it takes its turns."""
    report: dict[str, Any] | None = None
    """What verification found (:class:`squeezebert.export.verify.Report`)."""
    megabytes: float | None = None
    """Size of the files that hold the model, 10^6 bytes."""
    answer: str | None = None
    """What ``squeezebert classify`` says to a text."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Case -> seconds of each round."""

    @property
    def key(self) -> str:
        """Name of its folder."""
        return "-".join(filter(None, (self.model, self.format, None if self.shipped else self.form, self.precision)))

    @property
    def turn(self) -> str:
        """Its name among those of the run: BERT-base has one folder, and takes its turns beside every model."""
        return "-".join(filter(None, (self.key, self.beside and f"beside-{self.beside}")))


@dataclass
class FormatResults:
    """What was measured."""

    lines: list[Line] = field(default_factory=list)
    interrupted: bool = False
    """Whether Ctrl-C cut the run short."""


def bench_formats(settings: FormatSettings) -> FormatResults:
    """Measure. Ctrl-C ends the run; what was measured until then is returned.

    Raises:
        InputError: A checkpoint is none, or classifies no texts.
        MissingExtraError: torch, which every export takes, is not installed.
        KeyboardInterrupt: Ctrl-C came before anything was measured.
    """
    for model in settings.models:
        _check(model)
    results = FormatResults()
    with tempfile.TemporaryDirectory(prefix="squeezebert-formats-") as temporary:
        folder = settings.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for model in settings.models:
                lines = plan(settings, name_of(model))
                _make(settings, model, lines, folder, {line.key: line for line in results.lines})
                results.lines += lines
                groups = settings.formats if settings.forms else (None,)
                for format in groups:
                    _clock(settings, model, [line for line in lines if format in (None, line.format)], folder)
        except KeyboardInterrupt:
            if not any(line.seconds for line in results.lines):
                raise
            results.interrupted = True
    return results


def plan(settings: FormatSettings, model: str) -> list[Line]:
    """The artifacts of a model: those that ship, then, of each runtime, the other forms and BERT-base."""
    lines = [
        Line(
            model=model,
            format=format,
            precision=precision,
            shipped=True,
            form=shipped_form(format, precision) if format in CONVERTED else None,
        )
        for format in settings.formats
        for precision in PRECISIONS[format]
    ]
    for format in (each for each in settings.formats if each in WITH_FORMS and settings.forms):
        for precision in ("fp32", "int8"):
            common: dict[str, Any] = {"format": format, "precision": precision, "shipped": False}
            others = [form for form in FORMS if form != shipped_form(format, precision)]
            lines += [Line(model=model, form=form, **common) for form in others]
            lines.append(Line(model=PEER, beside=model, **common))
    return lines


def _check(model: str) -> None:
    require("torch", "torch")

    from squeezebert import checkpoint

    if not Path(model).is_dir() or artifact.is_artifact(model):
        raise InputError(f"{model}: is no folder of a checkpoint, which --models takes")
    head = checkpoint.find_head(model)
    if head != "sequence_classification":
        raise InputError(f"{model}: has the head {head}; give a model that classifies texts, for classify to run")


def _make(settings: FormatSettings, model: str, lines: list[Line], folder: Path, written: Mapping[str, Line]) -> None:
    """Write the artifacts, but for those that this run has written, and let ``classify`` read those that ship."""
    for number, line in enumerate(lines, start=1):
        if line.key in written:
            known = written[line.key]
            line.report, line.megabytes = known.report, known.megabytes
            line.error = known.error if known.megabytes is None else None
            continue
        target, log = folder / line.key, folder / f"{line.key}.log"
        python = settings.python(line.format)
        if line.shipped:
            # Forced, so that one that fails its checks is measured, too, and replaces what another run has left.
            words = ["squeezebert", "export", line.format, model, str(target), "--force"]
            if line.format in CONVERTED:
                words += ["--precision", line.precision]
        else:
            values = {name: getattr(line, name) for name in ("format", "precision", "form")}
            source = None if line.model == PEER else model
            words = ["squeezebert.bench.forms", json.dumps({**values, "source": source, "target": str(target)})]
        mark = folder / f"{line.key}.made"
        stamp = _stamp(line, None if line.model == PEER else model, python, settings.threads)
        made = mark.is_file() and mark.read_text(encoding="utf-8") == stamp
        if made and artifact.is_artifact(artifact.locate(target)):
            say(f"{line.model}: {number} of {len(lines)}: {line.key} is there from a former run")
        else:
            say(f"{line.model}: writing {number} of {len(lines)}: {line.key}")
            mark.unlink(missing_ok=True)
            status = _run(python, words, settings.threads, log)
            if status:
                line.error = last_line(log, status).removeprefix("squeezebert: ")
                continue
            write_text(mark, stamp)
        inner = Path(artifact.locate(target))
        values = read_json(inner / artifact.CONFIG)
        line.report = values.get("report")
        if line.shipped:
            line.form = values.get("form")
        files = list(values.get("files") or [artifact.WEIGHTS])
        line.megabytes = sum(file_bytes(inner / name) for name in files) / 1e6
        if line.shipped and line.format != "coreml":
            words = ["squeezebert", "classify", "--model", str(target), TEXT]
            if _run(python, words, settings.threads, log):
                line.error = f"classify: {last_line(log, 1).removeprefix('squeezebert: ')}"
            else:
                line.answer = last_line(log, 0)


def _stamp(line: Line, model: str | None, python: str, threads: int) -> str:
    """What an artifact, and the report in it, is made from: the checkpoint's files, this code, and who runs it."""
    package = Path(__file__).parents[1]
    sources = [path for part in ("export", "model") for path in (package / part).glob("*.py")]
    sources += [package / "bench" / name for name in ("forms.py", "peers.py")]
    files = [] if model is None else [path for path in Path(model).iterdir() if path.suffix in _CHECKPOINT]
    what = (line.format, line.precision, line.form, line.shipped, python, threads)
    made_of = hashlib.sha256(" ".join(map(str, what)).encode())
    for path in sorted(sources) + sorted(files):
        made_of.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return made_of.hexdigest()


def _runs(line: Line) -> bool:
    """Whether it is clocked here: Core ML's needs an Apple system, and a page a browser."""
    return line.format not in ("coreml", "web")


def _run(python: str, words: list[str], threads: int, log: Path) -> int:
    """Run a module in a process of its own, what it says going to a file; its exit status."""
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [python, "-m", *words],
            stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=False,
        )  # fmt: skip
    return done.returncode


def _clock(settings: FormatSettings, model: str, lines: list[Line], folder: Path) -> None:
    """Let the artifacts of one model, and BERT-base's, take turns."""
    ready = {line.key: line for line in lines if line.error is None and _runs(line)}
    workers: list[Worker] = []
    common = {"threads": settings.threads, "vocab_size": read_config(model).vocab_size}

    def failed(worker: Worker, error: WorkerError) -> None:
        ready[worker.name].error = f"ended in the middle: {error}"
        workers.remove(worker)

    try:
        for number, (key, line) in enumerate(ready.items(), start=1):
            say(f"starting {number} of {len(ready)}: {key}")
            job = json.dumps({"folder": str(folder / key), **common})
            command = [settings.python(line.format), "-m", "squeezebert.bench.artifact_worker", job]
            try:
                workers.append(Worker(key, command, settings.threads, folder / f"{key}.log"))
            except WorkerError as error:
                line.error = f"did not start: {error}"
        requests = cases.shapes(settings.cases)
        turns = take_turns(list(workers), requests, settings.rounds, WARMUP, failed=failed)
        for name, case, seconds in turns:
            ready[name].seconds.setdefault(case, []).append(seconds)
    finally:
        for worker in workers:
            worker.close()
