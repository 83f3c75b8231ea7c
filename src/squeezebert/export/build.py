"""Checkpoint -> verified artifact: converts, runs it beside PyTorch, writes the manifest; whole or not at all."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from squeezebert import artifact
from squeezebert.errors import InputError, require
from squeezebert.export.stored import altered, digests, file_bytes, vocabulary
from squeezebert.files import atomic_folder, read_json, write_json
from squeezebert.folder import is_size, resolve

if TYPE_CHECKING:
    from squeezebert.data.tables import Columns
    from squeezebert.export.golden import Golden, Run
    from squeezebert.export.graph import Graph
    from squeezebert.export.verify import Accuracy, Report
    from squeezebert.model.grouped import Form
    from squeezebert.runtime.engines.exported import ExportedEngine
    from squeezebert.runtime.engines.native import NativeEngine

FORMATS = ("onnx", "openvino", "executorch", "litert", "coreml")
"""Formats that are converted and verified here, each by the module of its name."""
NATIVE = "native"
"""The native engine's format, which :mod:`squeezebert.export.native` writes."""
RANDOM_WEIGHTS = "random weights, for timing"
"""Why what is made from a size name is not verified."""


@dataclass(frozen=True)
class Written:
    """What a converter says of the files that it wrote."""

    form: str
    """Form of the grouped layers."""
    files: tuple[str, ...]
    """Files and folders that hold the model."""
    companions: tuple[str, ...] = ()
    """The same model for other programs; verified too, and not what ``classify`` runs."""
    lengths: tuple[int, ...] = ()
    """Sequence lengths that they are made for, tokens; empty: any."""
    tolerance: float | None = None
    """Where the format's differs from :data:`squeezebert.artifact.TOLERANCES`."""


class Inspector(Protocol):
    """The module of a format that nothing here runs."""

    def inspect(self, folder: Path, manifest: artifact.Manifest, graph: Graph | None) -> list[str]:
        """Read an artifact back, and say what in it is not as it should be; weights are compared with ``graph``'s."""


class Converter(Protocol):
    """A format's module."""

    PACKAGES: tuple[str, ...]
    """Distributions that convert, the first being imported under its own name."""
    PRECISIONS: tuple[str, ...]
    """Precisions that the format has, the best for its runtime last."""
    HEADS: tuple[str, ...]
    """Heads that it carries."""

    def convert(self, graph: Graph, folder: Path, precision: str, form: Form | None = None) -> Written:
        """Write the model's files to a folder that exists, in a form of the grouped layers (None: the fastest)."""


@dataclass(frozen=True)
class Dev:
    """Labelled data to score an artifact on."""

    path: Path
    columns: Columns
    max_drop: float = 0.3
    """Allowed loss, percentage points."""


def export(
    format: str,
    source: str | Path,
    folder: str | Path,
    *,
    precision: str | None = None,
    max_length: int | None = None,
    dev: Dev | None = None,
    force: bool = False,
) -> Report:
    """Write a checkpoint as an artifact, and verify it.

    Args:
        format: One of :data:`FORMATS`.
        source: Folder or hub id of a checkpoint.
        folder: Where to write; a former artifact is replaced.
        precision: "fp32", "fp16" or "int8", of those that the format has; None: the format's smallest.
        max_length: Longest sequence that the artifact takes, tokens; None: the model's.
        dev: Labelled data to score it on.
        force: Keep an artifact that fails its checks; its manifest says which.

    Returns:
        What verification found; the manifest has it too.

    Raises:
        InputError: The checkpoint cannot be read or has a head that the format does not carry, an argument is out of
            range, or ``folder`` holds something else.
        MissingExtraError: The format's packages are not installed.
        VerificationError: A check failed.
        OSError: ``folder`` cannot be written, or the disk is full.
    """
    module = converter(format)
    chosen = precision or module.PRECISIONS[-1]
    if chosen not in module.PRECISIONS:
        raise InputError(f"--precision {chosen}: {format} has {', '.join(module.PRECISIONS)}")
    artifact.check_target(folder)

    from squeezebert.export import golden as goldens
    from squeezebert.export import graph as graphs
    from squeezebert.export.verify import VerificationError

    graph = graphs.load(source, max_length, module.HEADS)
    with atomic_folder(folder) as target:
        manifest = write(format, graph, target, chosen)
        golden = record(graph)
        goldens.save(golden, target)
        with twin(manifest, graph) as fp32:
            report = examine(target, manifest, golden, fp32=fp32, graph=graph, dev=dev)
        if report.failed and not force:
            raise VerificationError(report)
        write_json(target / artifact.CONFIG, replace(manifest, report=report.to_dict()).to_dict())
    return report


def export_native(
    source: str | Path,
    folder: str | Path,
    *,
    max_length: int | None = None,
    dev: Dev | None = None,
    force: bool = False,
) -> Report | None:
    """Write a checkpoint for the native engine; where torch and the engine are installed, verify it.

    Args:
        source: Folder or hub id of a checkpoint, or a size name (random weights, for timing).
        folder: Where to write; a former artifact is replaced.
        max_length: Longest sequence that the artifact takes, tokens; None: the model's.
        dev: Labelled data to score it on.
        force: Keep an artifact that fails its checks; its manifest says which.

    Returns:
        What verification found, as the manifest has it; None: it was not verified.

    Raises:
        InputError: As :func:`squeezebert.export.native.export`; ``max_length`` is out of range; there are labelled
            data, and nothing to verify with; or the source is an exported folder that was changed, or failed its
            checks and ``force`` is not set.
        MissingExtraError: As :func:`squeezebert.export.native.export`.
        VerificationError: A check failed.
        OSError: ``folder`` cannot be written, or the disk is full.
    """
    from squeezebert.export import native

    artifact.check_target(folder)
    missing = RANDOM_WEIGHTS if is_size(source) else why_unverified()
    if missing is not None and dev is not None:
        raise InputError(f"{dev.path}: cannot be scored here: {missing}; leave out --dev")
    if not is_size(source):
        _require_sound(resolve(source), force=force)
    with atomic_folder(folder) as target:
        native.write(source, target, max_length)
        if missing is not None:
            return None

        from squeezebert.export import golden as goldens
        from squeezebert.export import graph as graphs
        from squeezebert.export.verify import VerificationError

        manifest = artifact.read_manifest(target)
        graph = graphs.load(source, max_length, tuple(artifact.OUTPUTS))
        golden = record(graph)
        report = examine(target, manifest, golden, graph=graph, dev=dev)
        if report.failed and not force:
            raise VerificationError(report)
        goldens.save(golden, target)
        # Beside the manifest the file holds the model's sizes.
        write_json(target / artifact.CONFIG, read_json(target / artifact.CONFIG) | {"report": report.to_dict()})
    return report


def _require_sound(source: Path, *, force: bool) -> None:
    """Refuse to export anew what was exported once, and was changed since or failed: its values would look like new."""
    if not artifact.is_artifact(source):
        return
    manifest = artifact.read_manifest(source)
    if changed := altered(source, manifest):
        raise InputError(f"{source}: {'; '.join(changed)}; export the checkpoint again")
    failed = (manifest.report or {}).get("failed")
    if failed and not force:
        raise InputError(f"{source}: failed its checks: {'; '.join(failed)}; give its checkpoint, or --force")


def why_unverified() -> str | None:
    """What a native artifact's verification lacks here; None: nothing."""
    from squeezebert.runtime.engines.native import library_path

    if importlib.util.find_spec("torch") is None:
        return "torch, which it is compared with, is not installed"
    return "this installation has no native engine" if library_path() is None else None


def verify(folder: str | Path, *, checkpoint: str | Path | None = None, dev: Dev | None = None) -> Report:
    """Verify an artifact again, here.

    Args:
        folder: The artifact, or the page that holds it.
        checkpoint: What it was exported from: PyTorch runs it anew, and the fp32 artifact is made again to be timed
            beside. None: the golden outputs in the artifact are compared with, and latency with nothing.
        dev: Labelled data to score it on; needs ``checkpoint``.

    Raises:
        InputError: Artifact or checkpoint cannot be read, or they do not belong together.
        MissingExtraError: A package is not installed.
    """
    from squeezebert.export import golden as goldens

    folder = Path(artifact.locate(folder))
    manifest = artifact.read_manifest(folder)
    if manifest.format not in (*FORMATS, NATIVE):
        known = ", ".join((*FORMATS, NATIVE))
        raise InputError(f"{folder}: {manifest.format} artifacts are not verified here; {known} are")
    if checkpoint is None:
        if dev is not None:
            raise InputError("--dev compares with the checkpoint; give it with --checkpoint")
        return examine(folder, manifest, goldens.load(folder))

    from squeezebert.export import graph as graphs

    heads = tuple(artifact.OUTPUTS) if manifest.format == NATIVE else converter(manifest.format).HEADS
    require("torch", "torch")
    graph = graphs.load(checkpoint, manifest.max_position_embeddings, heads)
    # Of a model with both heads of pretraining, the native engine leaves out the order of passages.
    lesser = manifest.format == NATIVE and (manifest.head, graph.head) == ("masked_lm", "pretraining")
    if not lesser and graph.head != manifest.head:
        raise InputError(f"{folder}: has the head {manifest.head}, but {checkpoint} has {graph.head}")
    with twin(manifest, graph) as fp32:
        return examine(folder, manifest, record(graph), fp32=fp32, graph=graph, dev=dev)


def converter(format: str) -> Converter:
    """The module of a format, once its packages are there.

    Raises:
        MissingExtraError: One is not.
    """
    require("torch", "torch")

    from squeezebert.export.graph import quiet

    module = importlib.import_module(f"squeezebert.export.{format}")
    with quiet():
        for package in module.PACKAGES:
            require(package, format)
    return cast("Converter", module)


def write(format: str, graph: Graph, folder: Path, precision: str, form: Form | None = None) -> artifact.Manifest:
    """Convert a model into a folder that exists, and write vocabulary and manifest beside it."""
    module = converter(format)
    written = module.convert(graph, folder, precision, form)
    config, extra = graph.loaded.config, graph.loaded.extra
    length, pair = extra.get("max_length"), extra.get("pair")
    if graph.loaded.tokenizer is not None:
        graph.loaded.tokenizer.save(folder)
    manifest = artifact.Manifest(
        format=format,
        precision=precision,
        form=written.form,
        head=graph.head,
        labels=config.labels if graph.head in ("sequence_classification", "token_classification") else (),
        problem_type=config.problem_type,
        max_position_embeddings=graph.max_length,
        max_length=min(length, graph.max_length) if isinstance(length, int) else None,
        pair=pair if isinstance(pair, bool) else None,
        lengths=written.lengths,
        files={name: file_bytes(folder / name) for name in written.files},
        companions={name: file_bytes(folder / name) for name in written.companions},
        sha256=digests(folder, (*written.files, *written.companions, *vocabulary(folder))),
        tolerance=written.tolerance or artifact.TOLERANCES[precision],
        versions={package: version(package) for package in ("squeezebert", "torch", *module.PACKAGES)},
    )
    write_json(folder / artifact.CONFIG, manifest.to_dict())
    return manifest


@contextmanager
def twin(manifest: artifact.Manifest, graph: Graph) -> Iterator[Path | None]:
    """The fp32 artifact of the same format, in a temporary folder; None for an fp32 artifact."""
    if manifest.precision == "fp32" or manifest.format == NATIVE:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="squeezebert-") as folder:
        write(manifest.format, graph, Path(folder), "fp32")
        yield Path(folder)


def record(graph: Graph) -> Golden:
    """What PyTorch gives for the probes."""
    from squeezebert.export import golden as goldens

    config, labels = graph.loaded.config, graph.loaded.config.labels
    pair = graph.loaded.extra.get("pair")
    probes = goldens.probes(
        graph.loaded.tokenizer,
        vocab_size=config.real_vocab_size or config.vocab_size,
        max_length=graph.max_length,
        pair=pair is True,
    )
    decides = graph.head in ("sequence_classification", "token_classification")
    return goldens.record(probes, _torch_run(graph), labels if decides else ())


def examine(
    folder: Path,
    manifest: artifact.Manifest,
    golden: Golden,
    *,
    fp32: Path | None = None,
    graph: Graph | None = None,
    dev: Dev | None = None,
) -> Report:
    """Run an artifact's checks.

    Args:
        folder: The artifact.
        manifest: Its manifest.
        golden: What PyTorch gives.
        fp32: The fp32 artifact to compare with, if any. The native format has none; its size is compared with that of
            the checkpoint's weights in fp32.
        graph: The checkpoint, for ``dev``.
        dev: Labelled data.

    Raises:
        InputError: A file cannot be read, or ``dev`` cannot be scored.
        MissingExtraError: The format's runtime is not installed.
    """
    report = _examine(folder, manifest, golden, fp32, graph, dev)
    return replace(report, failed=(*report.failed, *altered(folder, manifest)))


def _examine(
    folder: Path,
    manifest: artifact.Manifest,
    golden: Golden,
    fp32: Path | None,
    graph: Graph | None,
    dev: Dev | None,
) -> Report:
    """What running the artifact, or reading it back, finds."""
    from squeezebert.export.verify import inspected
    from squeezebert.export.verify import verify as run_checks
    from squeezebert.host import usable_cpus
    from squeezebert.runtime.engines.exported import SESSIONS, ExportedEngine

    stored = (manifest.report or {}).get("fp32_bytes")
    fp32_bytes = stored if fp32 is None else sum(artifact.read_manifest(fp32).files.values())
    if manifest.format == NATIVE:
        return _examine_native(folder, manifest, golden, graph, dev, stored)
    if manifest.format not in SESSIONS:
        if dev is not None:
            raise InputError(
                f"{dev.path}: nothing here runs {manifest.format}, so it cannot be scored; leave out --dev"
            )
        found = cast("Inspector", converter(manifest.format)).inspect(folder, manifest, graph)
        size = sum(file_bytes(folder / name) for name in manifest.files)
        return inspected(manifest, golden, found, size=size, threads=usable_cpus(), fp32_bytes=fp32_bytes)
    engine = ExportedEngine.load(folder)
    return run_checks(
        engine,
        golden,
        companions=_companions(folder, manifest),
        size=sum(file_bytes(folder / name) for name in manifest.files),
        threads=usable_cpus(),
        twin=None if fp32 is None else ExportedEngine.load(fp32),
        fp32_bytes=fp32_bytes,
        accuracy=None if dev is None or graph is None else _accuracy(folder, engine, graph, dev),
        max_accuracy_drop=0.0 if dev is None else dev.max_drop,
    )


def _examine_native(
    folder: Path, manifest: artifact.Manifest, golden: Golden, graph: Graph | None, dev: Dev | None, stored: int | None
) -> Report:
    from squeezebert.export.verify import verify as run_checks
    from squeezebert.runtime.engines.native import NativeEngine

    engine = NativeEngine.load(folder)
    if engine.manifest.tolerance is None:  # written before one was stated
        engine.manifest = replace(engine.manifest, tolerance=artifact.TOLERANCES["int8"])
    first = golden.probes[0]
    names = engine.outputs(first.ids, first.mask, first.types)  # without what the engine leaves out
    golden = replace(golden, outputs=[{name: each[name] for name in names} for each in golden.outputs])
    return run_checks(
        engine,
        golden,
        size=file_bytes(folder / artifact.WEIGHTS),
        threads=engine.threads,
        fp32_bytes=stored if graph is None else 4 * sum(each.numel() for each in graph.loaded.model.parameters()),
        accuracy=None if dev is None or graph is None else _accuracy(folder, engine, graph, dev),
        max_accuracy_drop=0.0 if dev is None else dev.max_drop,
    )


def _companions(folder: Path, manifest: artifact.Manifest) -> dict[str, ExportedEngine]:
    """The files that hold the same model for other programs, in ONNX Runtime, which the only ones there are made for.

    Raises:
        InputError: One is missing or damaged.
    """
    from squeezebert.host import usable_cpus
    from squeezebert.runtime.engines import onnx
    from squeezebert.runtime.engines.exported import ExportedEngine

    missing = [name for name in manifest.companions if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: {missing[0]} is missing; export the checkpoint again")
    return {
        name: ExportedEngine(folder, manifest, onnx.open_file(folder / name, usable_cpus()))
        for name in manifest.companions
    }


def _accuracy(folder: Path, engine: ExportedEngine | NativeEngine, graph: Graph, dev: Dev) -> Accuracy:
    """Score checkpoint and artifact, each with its own vocabulary, on the same rows."""
    import torch

    from squeezebert.evaluation.evaluate import evaluate, read_table
    from squeezebert.export.verify import Accuracy
    from squeezebert.runtime.engines.torch import TorchEngine
    from squeezebert.runtime.predictor import Predictor
    from squeezebert.tokenizer import Tokenizer

    tokenizer = graph.loaded.tokenizer
    if graph.head != "sequence_classification" or tokenizer is None:
        raise InputError(f"{dev.path}: only a classifier of texts that has a vocabulary can be scored on a table")
    task, examples = read_table(dev.path, dev.columns, engine, graph.loaded.report.source)
    scores = []
    own = Tokenizer.load(folder)
    for each, words in ((TorchEngine(graph.loaded, tokenizer, torch.device("cpu")), tokenizer), (engine, own)):
        predictor = Predictor(each, words, max_length=engine.default_length)
        found = evaluate(task, examples, predictor.logits, kind=engine.kind, labels=engine.labels)
        scores.append(found.scores[task.primary_metric])
    return Accuracy(metric=task.primary_metric, rows=len(examples), checkpoint=scores[0], artifact=scores[1])


def _torch_run(graph: Graph) -> Run:
    import torch

    @torch.inference_mode()
    def run(*inputs: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        outputs = graph.module(*(torch.from_numpy(each) for each in inputs))
        return {name: each.numpy() for name, each in zip(graph.outputs, outputs, strict=True)}

    return run
