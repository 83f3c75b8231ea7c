"""Results for people and programs: a table and ratios in Markdown, a picture, and JSON."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from squeezebert.bench.contenders import STACKS, Contender
from squeezebert.bench.harness import cpu_name, markdown_table, versions
from squeezebert.bench.run import Results, Settings
from squeezebert.errors import require
from squeezebert.files import atomic_path, write_json, write_text

PACKAGES = ("squeezebert", "torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf", "tokenizers", "numpy")
_COLOURS = {"native": "C3", "torch": "C1", "transformers": "C7", "onnxruntime": "C0", "openvino": "C2"}
_BERT_EAGER = "transformers-fp32-bert"


def check_plot() -> None:
    """Make sure, before anything is measured, that the picture can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "bench")


def medians(results: Results) -> dict[str, dict[str, float]]:
    """Contender's key -> case -> median seconds."""
    return {key: {case: median(each) for case, each in by.items()} for key, by in results.seconds.items()}


def ratios(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """What the fastest of ours is compared with -> case -> the other's key, ours, and its time over ours."""
    times = medians(results)
    by_key = {each.key: each for each in results.contenders}

    def fastest(case: str, among: Iterable[Contender]) -> str | None:
        keys = [each.key for each in among if case in times.get(each.key, {})]
        return min(keys, key=lambda key: times[key][case], default=None)

    peers = [each for each in results.contenders if not each.ours]
    groups = {
        "transformers eager BERT-base": [each for each in peers if each.key == _BERT_EAGER],
        "fastest BERT-base": [each for each in peers if each.model == "bert"],
        "fastest other SqueezeBERT": [each for each in peers if each.model == "squeezebert"],
        "fastest MiniLM-L6 shape": [each for each in peers if each.model == "minilm"],
    }
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for case in _cases(results):
        best = fastest(case, [each for each in by_key.values() if each.ours])
        for name, group in groups.items():
            other = fastest(case, group)
            if best is not None and other is not None:
                ratio = times[other][case] / times[best][case]
                found.setdefault(name, {})[case] = {"ours": best, "other": other, "ratio": ratio}
    return found


def to_json(settings: Settings, results: Results, command: str) -> dict[str, Any]:
    """Everything that was measured, with what is needed to judge it."""
    times = medians(results)
    return {
        "date": datetime.date.today().isoformat(),
        "command": command,
        "cpu": cpu_name(),
        "threads": settings.threads,
        "versions": versions(PACKAGES),
        "size": settings.size,
        "rounds": settings.rounds,
        "interrupted": results.interrupted,
        "texts": results.texts,
        "contenders": [
            {
                "key": each.key,
                "title": each.title,
                "resident_mb": results.memory_mb.get(each.key),
                "file_mb": results.file_mb.get(each.key),
                "median_seconds": times[each.key],
                "seconds": results.seconds[each.key],
            }
            for each in results.contenders
            if each.key in times
        ],
        "ratios": ratios(results),
        "classify_seconds": results.classify_seconds,
        "skipped": results.skipped,
    }


def markdown(settings: Settings, results: Results, command: str) -> str:
    """The report."""
    facts = ", ".join(f"{name} {version}" for name, version in versions(PACKAGES).items())
    parts = [
        f"# Speed and memory, SqueezeBERT `{settings.size}`, {settings.threads} threads",
        f"{datetime.date.today().isoformat()}. {cpu_name()}. {facts}.",
        f"Command: `{command}`",
    ]
    if results.interrupted:
        parts.append("**Interrupted**: fewer rounds than asked for, or cases missing.")
    parts += [
        "Milliseconds of a batch (rows x tokens) and texts per second (tokenization included), medians, the fastest in "
        "bold; resident memory of the process after a few runs of 1x128; size of the model's files. Random weights.",
        _table(results),
    ]
    compared = ratios(results)
    if compared:
        cases = _cases(results)
        rows = [
            [name, *(f"{by[case]['ratio']:.2f}x" if case in by else "" for case in cases)]
            for name, by in compared.items()
        ]
        parts += ["How many times as fast the fastest of ours is:", markdown_table(["", *cases], rows)]
    if results.classify_seconds:
        parts.append(
            f"`squeezebert classify` with one text, the whole process: {median(results.classify_seconds):.3f} s "
            f"(median of {len(results.classify_seconds)})."
        )
    if results.texts:
        counts = ", ".join(f"{task}: {count}" for task, count in results.texts.items())
        parts.append(f"Texts of a round: {counts}.")
    if results.skipped:
        parts.append("Not measured:\n\n" + "\n".join(f"- {title}: {why}" for title, why in results.skipped.items()))
    return "\n\n".join(parts) + "\n"


def draw(path: Path, settings: Settings, results: Results) -> None:
    """Draw bars: a picture of each case, and one of the memory."""
    check_plot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    times = medians(results)
    shown = [each for each in results.contenders if times.get(each.key)]
    panels = [(case, _unit(results, case)) for case in _cases(results)] + [("memory", "resident MB")]
    height = 1.2 + 0.24 * len(shown)
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.5 + 3.2 * columns, 0.8 + height * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (case, unit) in zip(axes.flat, panels, strict=False):
        values = [
            results.memory_mb.get(each.key) if case == "memory" else _value(results, times[each.key].get(case), case)
            for each in shown
        ]
        axis.barh(range(len(shown)), [value or 0.0 for value in values], color=[_COLOURS[each.stack] for each in shown])
        for place, value in enumerate(values):
            if value is not None:
                axis.text(value, place, f" {_short(value)}", va="center", fontsize=8)
        axis.set_title(case)
        axis.set_xlabel(unit)
        axis.set_yticks(range(len(shown)), [each.title for each in shown], fontsize=8)
        axis.margins(x=0.2)
    axes[0, 0].invert_yaxis()
    stacks = list(dict.fromkeys(each.stack for each in shown))
    figure.legend(
        handles=[Patch(color=_COLOURS[stack], label=STACKS[stack]) for stack in stacks],
        loc="outside lower center", ncols=len(stacks), fontsize=9,
    )  # fmt: skip
    figure.suptitle(f"SqueezeBERT {settings.size}, {settings.threads} threads, {cpu_name()}", fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _short(value: float) -> str:
    """A figure of three digits, or whole."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def write_times(folder: Path, settings: Settings, results: Results, command: str) -> None:
    """Write ``bench.json``.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    write_json(folder / "bench.json", to_json(settings, results, command))


def write(folder: Path, settings: Settings, results: Results, command: str) -> None:
    """Write ``bench.md``, ``bench.png`` and ``bench.json``.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    write_times(folder, settings, results, command)
    draw(folder / "bench.png", settings, results)
    write_text(folder / "bench.md", markdown(settings, results, command))


def _table(results: Results) -> str:
    times = medians(results)
    cases = _cases(results)
    best = {case: min(by[case] for by in times.values() if case in by) for case in cases}
    rows = []
    for each in results.contenders:
        if not times.get(each.key):
            continue
        row = [each.title]
        for case in cases:
            seconds = times[each.key].get(case)
            value = _value(results, seconds, case)
            cell = "" if value is None else _short(value)
            row.append(f"**{cell}**" if cell and seconds == best[case] else cell)
        for megabytes in (results.memory_mb.get(each.key), results.file_mb.get(each.key)):
            row.append("" if megabytes is None else f"{megabytes:,.0f}")
        rows.append(row)
    return markdown_table(["", *(f"{case}, {_unit(results, case)}" for case in cases), "memory, MB", "files, MB"], rows)


def _cases(results: Results) -> list[str]:
    """Cases that somebody has a time for, in the order in which they were run."""
    return list(dict.fromkeys(case for by in results.seconds.values() for case in by))


def _unit(results: Results, case: str) -> str:
    return "texts/s" if case in results.texts else "ms"


def _value(results: Results, seconds: float | None, case: str) -> float | None:
    """A time in its case's unit."""
    if seconds is None:
        return None
    return results.texts[case] / seconds if case in results.texts else 1e3 * seconds
