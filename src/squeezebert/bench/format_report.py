"""Formats and forms for people and programs: tables in Markdown, a picture, and JSON."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from squeezebert.bench.formats import FORMS, PEER, WITH_FORMS, FormatResults, FormatSettings, Line
from squeezebert.bench.harness import cpu_name, markdown_table, versions
from squeezebert.bench.report import check_plot
from squeezebert.files import atomic_path, write_json, write_text

PACKAGES = ("squeezebert", "torch", "numpy")
_RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "executorch": "ExecuTorch", "litert": "LiteRT"}
_COLOURS = {"fp32": "C7", "fp16": "C0", "int8": "C3"}


def to_json(settings: FormatSettings, results: FormatResults, command: str) -> dict[str, Any]:
    """Everything that was measured, with what is needed to judge it."""
    return {
        "date": datetime.date.today().isoformat(),
        "command": command,
        "cpu": cpu_name(),
        "threads": settings.threads,
        "rounds": settings.rounds,
        "versions": versions(PACKAGES),
        "interrupted": results.interrupted,
        "artifacts": [
            {"key": line.turn, **dataclasses.asdict(line), "median_seconds": _medians(line)} for line in results.lines
        ],
    }


def markdown(settings: FormatSettings, results: FormatResults, command: str) -> str:
    """The report."""
    facts = ", ".join(f"{name} {version}" for name, version in versions(PACKAGES).items())
    parts = [
        f"# Formats, {settings.threads} threads",
        f"{datetime.date.today().isoformat()}. {cpu_name()}. {facts}; each converter's version is in its artifact.",
        f"Command: `{command}`",
    ]
    if results.interrupted:
        parts.append("**Interrupted**: fewer rounds than asked for, or artifacts missing.")
    turns = (
        "those of a runtime taking turns, runtime after runtime" if settings.forms else "all of a model taking turns"
    )
    parts.append(
        "Size of the files that hold the model, 10^6 bytes; largest difference from PyTorch as a share of the largest "
        "logit, and share of equal labels, over lengths, paddings and sentences; milliseconds of a batch (rows x "
        f"tokens), medians, {turns}; in brackets, how many times as fast as the fastest fp32 artifact of the format. "
        "`classify`: what a fresh process makes of one text with the artifact."
    )
    for model in dict.fromkeys(line.model for line in results.lines if line.shipped):
        shipped = [line for line in results.lines if line.shipped and line.model == model]
        parts += [f"## {model}", _table(settings, shipped, _rivals(results.lines, model))]
    if settings.forms:
        parts += [_forms(settings, results)]
    troubles = [f"- {line.turn}: {reason}" for line in results.lines for reason in _troubles(line)]
    if troubles:
        parts.append("## What failed\n\n" + "\n".join(troubles))
    return "\n\n".join(parts) + "\n"


def write(folder: Path, settings: FormatSettings, results: FormatResults, command: str) -> None:
    """Write ``formats.md``, ``formats.png`` and ``formats.json``.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    write_json(folder / "formats.json", to_json(settings, results, command))
    draw(folder / "formats.png", settings, results)
    write_text(folder / "formats.md", markdown(settings, results, command))


def draw(path: Path, settings: FormatSettings, results: FormatResults) -> None:
    """Draw, for every model, bars of the shipped artifacts' sizes and times."""
    check_plot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(line.model for line in results.lines if line.shipped))
    panels = ["size, MB", *(f"{case}, ms" for case in settings.cases)]
    most = max(sum(line.shipped and line.model == model for line in results.lines) for model in models)
    figure = Figure(figsize=(3.2 * len(panels) + 1.5, (1.0 + 0.28 * most) * len(models)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(models), len(panels), squeeze=False, sharey="row")
    for row, model in enumerate(models):
        lines = [line for line in results.lines if line.shipped and line.model == model and line.megabytes is not None]
        for axis, panel in zip(axes[row], panels, strict=True):
            times = panel.removesuffix(", ms")
            values = [line.megabytes if panel == panels[0] else _milliseconds(line, times) for line in lines]
            axis.barh(
                range(len(lines)),
                [value or 0.0 for value in values],
                color=[_COLOURS[line.precision] for line in lines],
            )
            for place, value in enumerate(values):
                if value is not None:
                    axis.text(value, place, f" {value:.3g}", va="center", fontsize=8)
            axis.set(title=f"{model}: {panel}")
            axis.set_yticks(range(len(lines)), [f"{line.format} {line.precision}" for line in lines], fontsize=8)
            axis.margins(x=0.2)
        axes[row, 0].invert_yaxis()
    figure.suptitle(f"{settings.threads} threads, {cpu_name()}", fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _rivals(lines: Sequence[Line], model: str) -> dict[str, dict[str, float]]:
    """Format -> case -> least median milliseconds of its fp32 artifacts, in whatever form."""
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        if line.model == model and line.precision == "fp32":
            best = found.setdefault(line.format, {})
            for case, seconds in _medians(line).items():
                best[case] = min(best.get(case, float("inf")), 1e3 * seconds)
    return found


def _table(settings: FormatSettings, lines: Sequence[Line], rivals: dict[str, dict[str, float]]) -> str:
    rows = []
    for line in lines:
        report = line.report or {}
        whole = report.get("fp32_bytes")
        smaller = f" ({whole / 1e6 / line.megabytes:.1f}x smaller)" if whole and line.megabytes else ""
        difference, agreement = report.get("relative_difference"), report.get("label_agreement")
        row = [
            line.format, line.precision, line.form or "own",
            "" if line.megabytes is None else f"{line.megabytes:.1f}{smaller}",
            "" if difference is None else f"{100 * difference:.2g} %",
            "" if agreement is None else f"{100 * agreement:.1f} %",
        ]  # fmt: skip
        for case in settings.cases:
            value, rival = _milliseconds(line, case), rivals.get(line.format, {}).get(case)
            gain = f" ({rival / value:.2f}x)" if value and rival and line.precision != "fp32" else ""
            row.append("" if value is None else f"{value:.2f}{gain}")
        row.append(line.answer or ("not executed" if report.get("executed") is False else ""))
        row.append(_verdict(line))
        rows.append(row)
    header = ["format", "precision", "form", "MB", "difference", "agreement", *settings.cases, "`classify`", "checks"]
    return markdown_table(header, rows)


def _verdict(line: Line) -> str:
    """Whether an artifact passed its checks."""
    if line.error or (line.report or {}).get("failed"):
        return "failed"
    return "passed" if line.report else "not verified"


def _forms(settings: FormatSettings, results: FormatResults) -> str:
    """Every form in every runtime beside BERT-base, the fastest form in bold, and how many times as fast it is."""
    parts = [
        "## Forms of the grouped layers\n\nMilliseconds; MB of the files that hold the model. In bold, the fastest "
        "form of the runtime and precision. `ships`: what `squeezebert export` writes."
    ]
    for model in dict.fromkeys(line.model for line in results.lines if line.shipped):
        rows = []
        for format in (each for each in settings.formats if each in WITH_FORMS):
            for precision in ("fp32", "int8"):
                among = [
                    line for line in results.lines
                    if (line.format, line.precision) == (format, precision) and model in (line.model, line.beside)
                ]  # fmt: skip
                peer = next((line for line in among if line.model == PEER), None)
                ours = {str(line.form): line for line in among if line.model == model}
                for form in FORMS:
                    if form in ours:
                        rows.append(_form_row(settings, format, ours[form], list(ours.values()), peer))
                if peer is not None:
                    rows.append(_form_row(settings, format, peer, [], None))
        header = ["runtime", "precision", "model", *settings.cases, "MB", "ships"]
        parts.append(f"### {model}\n\n{markdown_table(header, rows)}")
    parts.append(
        "In brackets: how many times as fast as BERT-base in the same runtime and precision, which took its turns "
        "beside the model."
    )
    return "\n\n".join(parts)


def _form_row(settings: FormatSettings, format: str, line: Line, among: Sequence[Line], peer: Line | None) -> list[str]:
    name = PEER if line.model == PEER else str(line.form)
    row = [_RUNTIMES[format], line.precision, name]
    for case in settings.cases:
        value = _milliseconds(line, case)
        others = [found for found in (_milliseconds(each, case) for each in among) if found is not None]
        beside = None if peer is None else _milliseconds(peer, case)
        text = "" if value is None else f"{value:.2f}"
        if value is not None and others and value == min(others):
            text = f"**{text}**"
        row.append(f"{text} ({beside / value:.2f}x)" if value and beside else text)
    return [*row, "" if line.megabytes is None else f"{line.megabytes:.1f}", "ships" if line.shipped else ""]


def _troubles(line: Line) -> list[str]:
    failed = list((line.report or {}).get("failed", ()))
    # Of the forms that do not ship, only wrong results are of interest.
    kept = failed if line.shipped else [each for each in failed if each.startswith(("difference", "agreement"))]
    return [*([line.error] if line.error else []), *kept]


def _medians(line: Line) -> dict[str, float]:
    return {case: median(times) for case, times in line.seconds.items()}


def _milliseconds(line: Line, case: str) -> float | None:
    times = line.seconds.get(case)
    return 1e3 * median(times) if times else None
