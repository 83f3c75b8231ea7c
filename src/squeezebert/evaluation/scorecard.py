"""The scores of GLUE suites beside the paper's figures, with what is known of each.

Ours are scores on the dev sets. The paper's are of two kinds, which are kept apart: test scores of the model finetuned
with bells and whistles, and dev scores of the model finetuned plainly.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeezebert.data.tasks import GLUE, Coverage
from squeezebert.errors import InputError
from squeezebert.files import read_json

SUITE = "suite.json"
"""What the tasks of a suite have in common."""
RECORD = "record.json"
"""In a task's folder: how it was run; written last, so it says that the task is finished."""
_METRICS = "metrics.json"


@dataclass(frozen=True)
class Published:
    """A figure of the paper's, in points."""

    value: float
    metric: str | None
    """Name of the metric; None: the source does not say, so there is no gap to it."""
    confirmed: bool = True
    """Whether it was read in a source, rather than remembered."""


@dataclass(frozen=True)
class Row:
    """A line of the scorecard: a task, or one of MNLI's two dev sets."""

    label: str
    task: str
    split: str = "validation"
    test: Published | None = None
    """The paper's test score, with bells and whistles. Per task: PapersWithCode."""
    dev: Published | None = None
    """The paper's dev score, without. As quoted in the AdaHessian paper (arXiv:2006.00719), from memory."""

    @property
    def metric(self) -> str:
        """The metric that stands for the task."""
        return GLUE[self.task].primary_metric


_ACCURACY, _BOTH = "accuracy", "accuracy_and_f1"

ROWS: tuple[Row, ...] = (
    Row("CoLA", "cola", test=Published(46.5, "matthews_correlation")),
    Row("SST-2", "sst2", test=Published(91.4, _ACCURACY), dev=Published(92.0, _ACCURACY, confirmed=False)),
    # PapersWithCode calls the test figures of MRPC and QQP accuracy; 80.3 for QQP can only be the mean with F1.
    Row("MRPC", "mrpc", test=Published(87.8, _BOTH), dev=Published(89.8, None, confirmed=False)),
    Row(
        "STS-B", "stsb",
        test=Published(86.7, "pearson_and_spearman", confirmed=False), dev=Published(89.4, None, confirmed=False),
    ),
    # A run of others (renmada/squeezebert-paddle) has a dev accuracy of 89.36.
    Row("QQP", "qqp", test=Published(80.3, _BOTH), dev=Published(89.4, _ACCURACY, confirmed=False)),
    Row("MNLI-m", "mnli", test=Published(82.0, _ACCURACY), dev=Published(82.9, _ACCURACY, confirmed=False)),
    Row(
        "MNLI-mm", "mnli", "validation_mismatched",
        test=Published(81.1, _ACCURACY), dev=Published(82.3, _ACCURACY, confirmed=False),
    ),
    Row("QNLI", "qnli", test=Published(90.1, _ACCURACY), dev=Published(90.5, _ACCURACY, confirmed=False)),
    Row("RTE", "rte", test=Published(73.2, _ACCURACY), dev=Published(71.8, _ACCURACY, confirmed=False)),
    Row("WNLI", "wnli", test=Published(65.1, _ACCURACY, confirmed=False)),
)  # fmt: skip


@dataclass(frozen=True)
class Suite:
    """A suite's folder, as far as it is finished."""

    name: str
    common: Mapping[str, Any]
    """The content of ``suite.json``."""
    tasks: Mapping[str, Mapping[str, Any]]
    """Task -> its record, and under ``metrics`` its figures."""

    def seeds(self, row: Row, metric: str) -> dict[int, float]:
        """Seed -> score in points; empty where the task is not finished."""
        if row.task not in self.tasks:
            return {}
        metrics = self.tasks[row.task]["metrics"]
        return {each["seed"]: 100 * each["figures"][row.split][metric] for each in metrics["seeds"]}

    def coverage(self, task: str) -> dict[str, Coverage]:
        """Split -> how much of it the task was run on."""
        return {split: Coverage(each["rows"], each["official"]) for split, each in self.tasks[task]["data"].items()}

    def complete(self, task: str) -> bool:
        """Whether the task is finished, on all of its official training and dev data."""
        return task in self.tasks and all(each.complete for each in self.coverage(task).values())


def read_suite(folder: str | Path) -> Suite:
    """Read what ``squeezebert glue run`` has left.

    Raises:
        InputError: The folder holds no suite, or no finished task.
    """
    folder = Path(folder)
    if not (folder / SUITE).is_file():
        raise InputError(
            f"{folder}: no {SUITE}, so this is no GLUE suite; give the output folder of: squeezebert glue run"
        )
    tasks = {
        name: {**read_json(folder / name / RECORD), "metrics": read_json(folder / name / _METRICS)}
        for name in GLUE
        if (folder / name / RECORD).is_file()
    }
    if not tasks:
        raise InputError(f"{folder}: no task is finished; go on with: squeezebert glue run")
    return Suite(folder.resolve().name, read_json(folder / SUITE), tasks)


def score_suites(suites: Sequence[Suite]) -> dict[str, Any]:
    """Put suites beside each other and beside the paper, ready for JSON; all scores in points.

    Raises:
        InputError: Two suites have the same name.
    """
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        raise InputError(f"suites: two folders have the name {max(names, key=names.count)}; rename one")
    return {
        "suites": {
            suite.name: {
                **suite.common,
                "tasks": {
                    name: {
                        **{key: value for key, value in record.items() if key != "metrics"},
                        "seconds": sum(each["seconds"] for each in record["metrics"]["seeds"]),
                    }
                    for name, record in suite.tasks.items()
                },
            }
            for suite in suites
        },
        "rows": [_score_row(row, suites) for row in ROWS],
        "mean": _means(suites),
    }


def _score_row(row: Row, suites: Sequence[Suite]) -> dict[str, Any]:
    scored: dict[str, Any] = {}
    for suite in suites:
        seeds = suite.seeds(row, row.metric)
        if not seeds:
            continue
        scored[suite.name] = {
            **_spread(seeds.values()),
            "seeds": {str(seed): value for seed, value in seeds.items()},
            "complete": suite.complete(row.task),
            "gap_to_paper_dev": _gap(suite, row, row.dev),
            "gap_to_paper_test": _gap(suite, row, row.test),
            "gain_over_first": _gain(suites[0], suite, row),
        }
    published = {
        name: None if each is None else {"value": each.value, "metric": each.metric, "confirmed": each.confirmed}
        for name, each in (("paper_dev_plain", row.dev), ("paper_test_bells", row.test))
    }
    return {"label": row.label, "task": row.task, "split": row.split, "metric": row.metric, "ours": scored, **published}


def _spread(values: Iterable[float]) -> dict[str, float | None]:
    """Mean, and standard deviation where there are several values."""
    values = list(values)
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}


def _gap(suite: Suite, row: Row, published: Published | None) -> float | None:
    """Ours less the paper's, in the metric of the paper's."""
    if published is None or published.metric is None:
        return None
    return statistics.fmean(suite.seeds(row, published.metric).values()) - published.value


def _gain(first: Suite, other: Suite, row: Row) -> dict[str, Any] | None:
    """What another suite gains over the first, seed by seed."""
    ours, theirs = other.seeds(row, row.metric), first.seeds(row, row.metric)
    shared = [seed for seed in ours if seed in theirs]
    if other is first or not shared:
        return None
    return {**_spread(ours[seed] - theirs[seed] for seed in shared), "seeds": shared}


def _means(suites: Sequence[Suite]) -> dict[str, Any] | None:
    """GLUE's mean, over the tasks that every suite has run on all of their data; None where there is no such task.

    A task counts once: MNLI as the mean of its two sets, tasks of two metrics as the mean of them.
    """
    tasks = [name for name in dict.fromkeys(row.task for row in ROWS) if all(each.complete(name) for each in suites)]
    if not tasks:
        return None
    rows = {name: [row for row in ROWS if row.task == name] for name in tasks}
    ours = {}
    for suite in suites:
        by_task = [[suite.seeds(row, row.metric) for row in rows[name]] for name in tasks]
        shared = set.intersection(*(set(each) for scores in by_task for each in scores))
        mean = statistics.fmean(
            statistics.fmean(statistics.fmean(each.values()) for each in scores) for scores in by_task
        )
        over_seeds = [
            statistics.fmean(statistics.fmean(each[seed] for each in scores) for scores in by_task) for seed in shared
        ]
        ours[suite.name] = {"mean": mean, "sd": statistics.stdev(over_seeds) if len(over_seeds) > 1 else None}
    test = {name: [row.test for row in rows[name] if row.test is not None] for name in tasks}
    return {
        "tasks": tasks,
        "all_nine": len(tasks) == len({row.task for row in ROWS}),
        "ours": ours,
        "paper_test_bells": {
            "value": statistics.fmean(statistics.fmean(each.value for each in cells) for cells in test.values()),
            "confirmed": all(each.confirmed for cells in test.values() for each in cells),
        },
    }
