"""An artifact beside PyTorch: differences, labels, size, latency and accuracy, and whether they are good enough."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.artifact import SMALLER, Manifest
from squeezebert.evaluation.metrics import decide
from squeezebert.export.golden import Golden, Run, kept
from squeezebert.runtime.engines import kind_of

if TYPE_CHECKING:
    from squeezebert.runtime.engines.exported import ExportedEngine
    from squeezebert.runtime.engines.native import NativeEngine

SHAPES = ((1, 32), (1, 128), (8, 128))
"""Batches that are timed: rows, tokens."""
_ROUNDS, _SECONDS = 20, 4.0
"""Most rounds of one shape, and the time after which no further one begins."""


class VerificationError(Exception):
    """An artifact that failed its checks."""

    def __init__(self, report: Report) -> None:
        super().__init__("; ".join(report.failed))
        self.report = report


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Scores on labelled data."""

    metric: str
    rows: int
    checkpoint: float
    """Fraction, through PyTorch."""
    artifact: float
    """Fraction, through the artifact's runtime."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What verification found."""

    executed: bool
    """Whether the artifact was run; Core ML's cannot be, away from Apple's systems."""
    rows: int = 0
    """Sequences that were compared."""
    largest_difference: float | None = None
    """Of an output from PyTorch's."""
    relative_difference: float | None = None
    """The same as a share of the largest output; of several outputs the worst."""
    companions: Mapping[str, float] = field(default_factory=dict)
    """File that holds the same model for other programs -> its relative difference."""
    label_agreement: float | None = None
    """Share of the decisions that are the same, by name; None: the head decides nothing."""
    bytes: int
    """Of the files that hold the model."""
    fp32_bytes: int | None = None
    """Of the fp32 artifact of the same format, or of the checkpoint's weights in fp32 where the format has none. None:
    this is one, or there is nothing to compare with."""
    latency_ms: Mapping[str, float]
    """Rows x tokens -> least time of a call."""
    fp32_latency_ms: Mapping[str, float] | None = None
    """The fp32 artifact's, measured in turns with this one's."""
    threads: int
    machine: str
    """Where it was measured."""
    accuracy: Accuracy | None = None
    """None: no labelled data were given."""
    notes: tuple[str, ...] = ()
    """What falls short of its aim without being wrong, a line each."""
    failed: tuple[str, ...] = ()
    """What is not good enough, a line each; an artifact that has any was kept by force."""

    def to_dict(self) -> dict[str, Any]:
        """Fields for the manifest; a difference that is not finite, which JSON has no word for, is None."""
        return {
            **asdict(self),
            "largest_difference": _finite(self.largest_difference),
            "relative_difference": _finite(self.relative_difference),
            "companions": {name: _finite(value) for name, value in self.companions.items()},
            "notes": list(self.notes),
            "failed": list(self.failed),
        }

    def describe(self) -> list[str]:
        """Lines for people."""
        size = f"size        {self.bytes / 1e6:.1f} MB"
        if self.fp32_bytes is not None:
            size += f", fp32 {self.fp32_bytes / 1e6:.1f} MB, {self.fp32_bytes / self.bytes:.2f} times as large"
        notes = [f"note        {line}" for line in self.notes]
        if not self.executed:
            return [size, *notes, "not executed: nothing here runs this format; its files were read back and compared"]
        assert self.largest_difference is not None
        assert self.relative_difference is not None
        lines = [
            f"difference  {self.largest_difference:.2g} at most, {self.relative_difference:.2%} of the largest output",
        ]
        for name, value in self.companions.items():
            lines.append(f"{name:<11} {value:.2%} of the largest output")
        if self.label_agreement is not None:
            lines.append(f"agreement   {self.label_agreement:.2%} of the labels of {self.rows} rows")
        lines.append(size)
        for shape, value in self.latency_ms.items():
            line = f"latency     {shape}: {value:.1f} ms"
            fp32 = (self.fp32_latency_ms or {}).get(shape)
            lines.append(line if fp32 is None else f"{line}, fp32 {fp32:.1f} ms")
        if self.accuracy is not None:
            found = self.accuracy
            lines.append(
                f"{found.metric:<11} {found.artifact:.4f}, PyTorch {found.checkpoint:.4f}, on {found.rows:,} rows"
            )
        return lines + notes


def verify(
    engine: ExportedEngine | NativeEngine,
    golden: Golden,
    *,
    companions: Mapping[str, ExportedEngine] | None = None,
    size: int,
    threads: int,
    twin: ExportedEngine | None = None,
    fp32_bytes: int | None = None,
    accuracy: Accuracy | None = None,
    max_accuracy_drop: float,
) -> Report:
    """Run an artifact over golden inputs and clock it.

    Args:
        engine: The artifact, in its runtime.
        golden: What PyTorch gives.
        companions: Files that hold the same model for other programs -> engines that run them.
        size: Bytes of the artifact's files.
        threads: Cores that the engines use, for the record.
        twin: The fp32 artifact of the same format, to be clocked beside; None: there is none.
        fp32_bytes: Size of the fp32 artifact.
        accuracy: Scores on labelled data.
        max_accuracy_drop: Allowed loss of accuracy, percentage points.

    Returns:
        The report, with the checks that failed.
    """
    manifest = engine.manifest
    outputs = _run(engine, golden)
    largest, relative = differences(golden, outputs)
    beside = {name: differences(golden, _run(each, golden))[1] for name, each in (companions or {}).items()}
    runs = [engine.outputs] if twin is None else [engine.outputs, twin.outputs]
    known_ids = 1 + max(int(each.ids.max()) for each in golden.probes)
    latency = clock(runs, manifest.max_position_embeddings, known_ids)
    agreement, clear = agreements(manifest, golden, outputs)
    report = Report(
        executed=True,
        rows=sum(len(each.ids) for each in golden.probes),
        largest_difference=largest,
        relative_difference=relative,
        companions=beside,
        label_agreement=agreement,
        bytes=size,
        fp32_bytes=fp32_bytes,
        latency_ms=latency[0],
        fp32_latency_ms=None if twin is None else latency[1],
        threads=threads,
        machine=machine(),
        accuracy=accuracy,
    )
    failed = [*labels_differ(manifest, golden), *checks(report, manifest, max_accuracy_drop)]
    if clear is not None and clear < 1:
        failed.append(f"agreement: of the labels that PyTorch is sure of, only {clear:.2%} are the same")
    return replace(report, notes=tuple(notes(report, manifest)), failed=tuple(failed))


def inspected(
    manifest: Manifest, golden: Golden, found: Sequence[str], *, size: int, threads: int, fp32_bytes: int | None
) -> Report:
    """Report on an artifact that nothing here runs.

    Args:
        manifest: What the artifact should be.
        golden: The checkpoint's labels.
        found: What in its files is not as it should be.
        size: Bytes of the artifact's files.
        threads: Cores, for the record.
        fp32_bytes: Size of the fp32 artifact.

    Returns:
        The report, with the checks that failed.
    """
    report = Report(
        executed=False, bytes=size, fp32_bytes=fp32_bytes, latency_ms={}, threads=threads, machine=machine()
    )
    failed = (*labels_differ(manifest, golden), *checks(report, manifest, 0.0), *found)
    return replace(report, notes=tuple(notes(report, manifest)), failed=failed)


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _run(engine: ExportedEngine | NativeEngine, golden: Golden) -> list[dict[str, NDArray[np.float32]]]:
    """What an engine gives for the probes, of that what golden outputs keep."""
    return [kept(engine.outputs(each.ids, each.mask, each.types), each.mask) for each in golden.probes]


def notes(report: Report, manifest: Manifest) -> list[str]:
    """What of a report falls short of its aim without being wrong.

    An artifact that is smaller by less than :data:`squeezebert.artifact.SMALLER` is as small as its runtime can make
    it: a small model's graph, norms and biases weigh more beside its matrices.
    """
    aim = SMALLER.get(manifest.precision)
    if aim is None or report.fp32_bytes is None or report.fp32_bytes >= aim * report.bytes:
        return []
    ratio = report.fp32_bytes / report.bytes
    return [f"size: {ratio:.2f} times smaller than fp32, where {manifest.precision} is meant to be {aim:g} times"]


def checks(report: Report, manifest: Manifest, max_accuracy_drop: float) -> list[str]:
    """What of a report is not good enough."""
    failed = []
    tolerance = manifest.tolerance or 0.0
    relative = report.relative_difference
    for what, value in (("difference", relative), *report.companions.items()):
        if value is not None and not value <= tolerance:  # NaN fails too
            failed.append(f"{what}: {value:.2%} of the largest output, where {tolerance:.2%} is allowed")
    if report.fp32_bytes is not None and report.bytes >= report.fp32_bytes:
        failed.append(f"size: {report.bytes / 1e6:.1f} MB, not smaller than fp32's {report.fp32_bytes / 1e6:.1f} MB")
    if manifest.precision == "int8" and report.fp32_latency_ms is not None:
        slower = [
            f"{shape} takes {value:.1f} ms, fp32 {report.fp32_latency_ms[shape]:.1f}"
            for shape, value in report.latency_ms.items()
            if value >= report.fp32_latency_ms[shape]
        ]
        # All but one must gain; on some runtimes the shortest has nothing to win.
        if len(slower) > 1:
            failed.append(f"latency: not faster than fp32 here ({'; '.join(slower)})")
    if report.accuracy is not None:
        drop = 100 * (report.accuracy.checkpoint - report.accuracy.artifact)
        if drop > max_accuracy_drop:
            failed.append(
                f"accuracy: {drop:.2f} points lost on {report.accuracy.metric}, {max_accuracy_drop:g} allowed"
            )
    return failed


def labels_differ(manifest: Manifest, golden: Golden) -> list[str]:
    """Whether the labels stand in the checkpoint's order; a wrong order turns every answer around."""
    if manifest.labels == golden.labels:
        return []
    return [f"labels: {', '.join(manifest.labels)}, where the checkpoint has {', '.join(golden.labels)}"]


def differences(golden: Golden, outputs: Sequence[Mapping[str, NDArray[np.float32]]]) -> tuple[float, float]:
    """Largest difference from PyTorch, and the largest as a share of that output's largest value.

    Outputs that are minus infinity, which rows that only pad a vocabulary are, must be so on both sides; a difference
    there, or a value that is no number, counts as infinite.
    """
    largest = relative = 0.0
    for name in golden.outputs[0]:
        want = np.concatenate([each[name].ravel() for each in golden.outputs]).astype(np.float64)
        got = np.concatenate([each[name].ravel() for each in outputs]).astype(np.float64)
        finite = np.isfinite(want)
        if not np.array_equal(finite, np.isfinite(got)) or np.isnan(got).any():
            return float("inf"), float("inf")
        difference = float(np.abs(want[finite] - got[finite]).max())
        largest = max(largest, difference)
        relative = max(relative, difference / float(np.abs(want[finite]).max()))
    return largest, relative


def agreements(
    manifest: Manifest, golden: Golden, outputs: Sequence[Mapping[str, NDArray[np.float32]]]
) -> tuple[float | None, float | None]:
    """Share of the decisions that are the same by name, of all and of those that the tolerance cannot turn.

    A decision is clear where the best label leads by more than twice the tolerance. None: the head decides nothing.
    """
    kind = kind_of(manifest.problem_type, len(golden.labels))
    if manifest.head not in ("sequence_classification", "token_classification") or kind == "regression":
        return None, None
    want, got = (
        np.concatenate([each["logits"].reshape(-1, each["logits"].shape[-1]) for each in side])
        for side in (golden.outputs, outputs)
    )
    if want.shape != got.shape or len(manifest.labels) != len(golden.labels):
        return None, None  # other checks say it
    least = 2 * (manifest.tolerance or 0.0) * float(np.abs(want).max())
    if kind == "multi_label":
        same, clear = decide(kind, want) == decide(kind, got), np.abs(want) > least
    else:
        names = np.array(manifest.labels), np.array(golden.labels)
        same = names[1][decide(kind, want)] == names[0][decide(kind, got)]
        ordered = np.sort(want, axis=1)[:, -2:]  # of a single label: itself, which is always clear
        clear = (np.ptp(ordered, axis=1) > least) | (want.shape[1] == 1)
    return float(same.mean()), float(same[clear].mean()) if clear.any() else None


def clock(runs: Sequence[Run], max_length: int, known_ids: int) -> list[dict[str, float]]:
    """Least time of a call of each model, by shape, milliseconds.

    The models take turns, so that whatever else the machine does falls on all alike; it only ever adds time, which is
    why the least counts.

    Args:
        runs: The models.
        max_length: Longest sequence that they take, tokens.
        known_ids: Token ids lie below it.
    """
    found: list[dict[str, float]] = [{} for _ in runs]
    for rows, tokens in dict.fromkeys((rows, min(length, max_length)) for rows, length in SHAPES):
        ids = np.arange(rows * tokens).reshape(rows, tokens) % known_ids
        mask, types = np.ones_like(ids), np.zeros_like(ids)
        times: list[list[float]] = [[] for _ in runs]
        for run in runs:
            run(ids, mask, types)  # the first call of a shape prepares
        until = time.perf_counter() + _SECONDS
        while len(times[0]) < _ROUNDS and (len(times[0]) < 3 or time.perf_counter() < until):
            for place, run in enumerate(runs):
                start = time.perf_counter()
                run(ids, mask, types)
                times[place].append(1e3 * (time.perf_counter() - start))
        for place, each in enumerate(times):
            found[place][f"{rows}x{tokens}"] = min(each)
    return found


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
