"""The scorecard of GLUE suites: as Markdown, JSON and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from squeezebert.data.tasks import Coverage
from squeezebert.errors import require
from squeezebert.evaluation.scorecard import Suite, score_suites
from squeezebert.files import atomic_path, write_json, write_text
from squeezebert.training.glue_presets import DISTILLATION


def write_scorecard(suites: Sequence[Suite], folder: str | Path) -> None:
    """Write ``scorecard.json``, ``scorecard.md`` and ``scorecard.png``.

    Args:
        suites: The first is what the others are compared with.
        folder: Where to.

    Raises:
        InputError: Two suites have the same name.
        MissingExtraError: matplotlib is not installed.
    """
    card = score_suites(suites)
    folder = Path(folder)
    write_json(folder / "scorecard.json", card)
    write_text(folder / "scorecard.md", to_markdown(card))
    draw(card, folder / "scorecard.png")


def to_markdown(card: Mapping[str, Any]) -> str:
    """The scorecard for people."""
    names = list(card["suites"])
    parts = [
        f"# GLUE scorecard: {', '.join(names)}",
        "Scores in points, mean ± standard deviation over the seeds. **Ours are on the dev sets**, which also chose "
        "the checkpoints, so a test score would be somewhat lower.",
        "![scorecard](scorecard.png)",
        _table(
            ["task", "metric", *names, "paper, dev, plain", "paper, test, bells and whistles"],
            [*(_score_cells(row, names) for row in card["rows"]), *_mean_cells(card, names)],
        ),
        _LEGEND,
        "## Gaps to the paper",
        "Ours less the paper's, in the metric of the paper's figure. The dev column compares equal sets, except where "
        "a task carries †, and with the paper's plain finetuning; the test column does not, so take it as a rough "
        "distance. No gap where the source does not name the metric.",
        _table(
            ["task", *(f"{name} − paper {kind}" for name in names for kind in ("dev", "test"))],
            [_gap_cells(row, names) for row in card["rows"] if row["ours"]],
        ),
    ]
    if len(names) > 1:
        parts += [
            f"## Gain over {names[0]}",
            "Differences seed by seed, their mean ± standard deviation.",
            _table(
                ["task", *(f"{name} − {names[0]}" for name in names[1:])],
                [_gain_cells(row, names[1:]) for row in card["rows"] if row["ours"]],
            ),
        ]
    for name in names:
        parts += _describe_suite(name, card["suites"][name], several=len(names) > 1)
    return "\n\n".join(parts) + "\n"


_LEGEND = """\
- † run on a part of the official data (see *Data*), so not comparable, and not in the mean.
- A task that starts from MNLI's student (see *start*) counts as complete whatever part of MNLI that had learned \
from, and its deviation does not hold that student's.
- ? from memory of a source, not read in it: the dev figures, which the AdaHessian paper quotes, and two test figures. \
The other test figures are PapersWithCode's; that theirs is the row with bells and whistles is itself not confirmed.
- The test figures of MRPC and QQP are taken as the mean of accuracy and F1. A metric in brackets is the figure's own.
- 65.1 on WNLI is what always answering `not_entailment` gives on the test set."""


def _score_cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        ours = row["ours"].get(name)
        cells.append("" if ours is None else _spread_text(ours) + ("" if ours["complete"] else " †"))
    return [row["label"], _plain(row["metric"]), *cells, *(_published(row[key], row["metric"]) for key in _PAPER)]


_PAPER = ("paper_dev_plain", "paper_test_bells")


def _mean_cells(card: Mapping[str, Any], names: Sequence[str]) -> list[list[str]]:
    mean = card["mean"]
    if mean is None:
        return []
    label = "**mean of all nine**" if mean["all_nine"] else f"**mean of {len(mean['tasks'])} complete**"
    ours = (_spread_text(mean["ours"][name]) for name in names)
    return [[label, ", ".join(mean["tasks"]), *ours, "", _confirmation(mean["paper_test_bells"])]]


def _gap_cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    gaps = [row["ours"].get(name, {}).get(key) for name in names for key in ("gap_to_paper_dev", "gap_to_paper_test")]
    mark = "" if all(ours["complete"] for ours in row["ours"].values()) else " †"
    return [row["label"] + mark, *("" if gap is None else _signed(gap) for gap in gaps)]


def _gain_cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        gain = row["ours"].get(name, {}).get("gain_over_first")
        deviation = "" if gain is None or gain["sd"] is None else f" ± {gain['sd']:.1f}"
        cells.append("" if gain is None else f"{_signed(gain['mean'])}{deviation} ({_seeds(gain['seeds'])})")
    mark = "" if all(ours["complete"] for ours in row["ours"].values()) else " †"
    return [row["label"] + mark, *cells]


def _describe_suite(name: str, suite: Mapping[str, Any], *, several: bool) -> list[str]:
    """Data, cost and provenance of one suite."""
    tasks = suite["tasks"]
    of = f" of {name}" if several else ""
    data = [
        [task, *(Coverage(**_rows(record["data"], split)).describe() for split in ("train", "validation"))]
        for task, record in tasks.items()
    ]
    cost = [
        [
            task,
            str(len(record["settings"]["seeds"])),
            str(record["settings"]["epochs"]),
            f"{record['examples']:,}",
            f"{record['seconds']:,.0f}",
            f"{record['examples'] / max(record['seconds'], 0.1):,.0f}",
        ]
        for task, record in tasks.items()
    ]
    total = sum(record["seconds"] for record in tasks.values())
    examples = sum(record["examples"] for record in tasks.values())
    cost.append(["**all**", "", "", f"{examples:,}", f"{total:,.0f}", ""])
    weights = suite["weights_sha256"]
    how = (
        "with bells and whistles" if suite["bells_and_whistles"] else "plain" if not suite["teachers"] else "distilled"
    )
    versions = {", ".join(f"{key} {value}" for key, value in each["versions"].items()) for each in tasks.values()}
    return [
        f"## Data{of}",
        _table(["task", "train", "dev"], data),
        f"## Cost{of}",
        "Examples and seconds of training, over all epochs and seeds.",
        _table(["task", "seeds", "epochs", "examples", "seconds", "examples/s"], cost),
        f"## Provenance{of}",
        "\n".join(
            [
                f"- Model: `{suite['model']}`"
                + ("" if weights is None else f", SHA-256 of config and weights `{weights}`"),
                f"- Finetuned {how}" + (f"; teachers: `{suite['teachers']}`" if suite["teachers"] else ""),
                f"- Presets: `{suite['presets']}`",
                *(f"- Versions: {each}" for each in sorted(versions)),
            ]
        ),
        _table(
            [*_PROVENANCE, *(DISTILLATION if suite["teachers"] else ()), "finished", "where the values come from"],
            [_provenance(task, record) for task, record in tasks.items()],
        ),
        "```\n" + "\n".join(record["command"] for record in tasks.values()) + "\n```",
    ]


_PROVENANCE = ("task", "start", "seeds", "rate", "dropout", "epochs", "batch")


def _rows(data: Mapping[str, Mapping[str, int]], split: str) -> dict[str, int]:
    """Rows of a split; MNLI's two dev sets together."""
    parts = [each for name, each in data.items() if name.startswith(split)]
    return {key: sum(each[key] for each in parts) for key in ("rows", "official")}


def _provenance(task: str, record: Mapping[str, Any]) -> list[str]:
    settings = record["settings"]
    return [
        task,
        "MNLI's student" if record["start"] == "mnli" else "the model",
        _seeds(settings["seeds"]),
        f"{settings['learning_rate']:g}",
        f"{settings['dropout']:g}",
        str(settings["epochs"]),
        str(settings["batch_size"]),
        *(f"{settings[name]:g}" for name in DISTILLATION if name in settings),
        record["finished"],
        " ".join(record["source"].split()),
    ]


def _spread_text(ours: Mapping[str, Any]) -> str:
    return f"{ours['mean']:.1f}" + ("" if ours["sd"] is None else f" ± {ours['sd']:.1f}")


def _published(cell: Mapping[str, Any] | None, metric: str) -> str:
    """A figure of the paper's, and its metric where it is not the row's."""
    if cell is None:
        return ""
    other = "" if cell["metric"] == metric else f" ({_plain(cell['metric'] or 'metric not told')})"
    return _confirmation(cell) + other


def _confirmation(cell: Mapping[str, Any]) -> str:
    return f"{cell['value']:.1f}" + ("" if cell["confirmed"] else " ?")


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _plain(metric: str) -> str:
    return {
        "matthews_correlation": "Matthews correlation",
        "pearson_and_spearman": "mean of Pearson and Spearman",
        "accuracy_and_f1": "mean of accuracy and F1",
    }.get(metric, metric.replace("_", " "))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def draw(card: Mapping[str, Any], path: Path) -> None:
    """Draw every task's scores, ours with each seed, the paper's beside them.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in card["rows"] if row["ours"]]
    names = list(card["suites"])
    step = 0.5 / max(len(names), 2)
    with matplotlib.rc_context({"font.size": 11, "axes.axisbelow": True}):
        figure = Figure(figsize=(11, 1.6 + (0.42 + 0.2 * len(names)) * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for place, row in enumerate(rows):
            for number, name in enumerate(names):
                if name in row["ours"]:
                    _draw_ours(axes, row["ours"][name], place - 0.2 + step * number, f"C{number}")
            for key, marker in (("paper_dev_plain", "D"), ("paper_test_bells", "s")):
                # A figure in another metric has no place on this line.
                if row[key] is not None and row[key]["metric"] == row["metric"]:
                    fill = "0.45" if row[key]["confirmed"] else "none"
                    axes.plot(row[key]["value"], place + 0.3, marker, color="0.45", markerfacecolor=fill, markersize=7)
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        for place in range(1, len(rows)):
            axes.axhline(place - 0.5, color="0.9", linewidth=0.8)
        axes.grid(axis="x", alpha=0.35)
        axes.set_xlabel("points; ours on the dev sets")
        axes.set_title(f"GLUE: {', '.join(names)}")
        _draw_legend(figure, names)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _draw_ours(axes: Any, ours: Mapping[str, Any], height: float, colour: str) -> None:
    axes.plot(list(ours["seeds"].values()), [height] * len(ours["seeds"]), "|", color=colour, markersize=9)
    fill = colour if ours["complete"] else "white"
    axes.plot(ours["mean"], height, "o", color=colour, markerfacecolor=fill, markersize=8)
    right = max(ours["mean"], *ours["seeds"].values())
    axes.annotate(f"{ours['mean']:.1f}", (right, height), (9, 0), textcoords="offset points", va="center", fontsize=9)


def _draw_legend(figure: Any, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    def key(marker: str, colour: str, label: str, fill: str | None = None) -> Any:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=fill or colour, label=label)

    keys = [
        *(key("o", f"C{number}", name) for number, name in enumerate(names)),
        key("o", "0.2", "on a part of the data", "white"),
        key("|", "0.2", "each seed"),
        key("D", "0.45", "paper, dev, plain (hollow: not confirmed)", "none"),
        key("s", "0.45", "paper, test, bells and whistles (hollow likewise)"),
    ]
    figure.legend(handles=keys, fontsize=9, loc="outside lower center", ncols=3, frameon=False)


def _label(row: Mapping[str, Any]) -> str:
    mark = "" if all(ours["complete"] for ours in row["ours"].values()) else " †"
    return f"{row['label']}{mark}\n{_plain(row['metric'])}"
