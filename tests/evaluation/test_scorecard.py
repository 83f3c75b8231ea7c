from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squeezebert.data.tasks import GLUE
from squeezebert.errors import InputError
from squeezebert.evaluation.scorecard import ROWS, read_suite, score_suites
from squeezebert.evaluation.scorecard_report import to_markdown, write_scorecard

Scores = dict[str, list[float]]

_SCORES: Scores = {
    "cola": [0.40, 0.42, 0.44], "sst2": [0.90, 0.91, 0.92], "mrpc": [0.80, 0.82, 0.84], "stsb": [0.85, 0.85, 0.85],
    "qqp": [0.80], "mnli": [0.70], "qnli": [0.83], "rte": [0.60, 0.62, 0.64], "wnli": [0.5, 0.5, 0.5],
}  # fmt: skip


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes what a finished suite leaves: seed n has the n-th score, in every metric and split."""

    def write(name: str = "ours", scores: Scores = _SCORES, partial: tuple[str, ...] = ("qqp", "mnli", "qnli")) -> Path:
        root = tmp_path / name
        common = {"model": "m", "weights_sha256": "ab12", "bells_and_whistles": False, "teachers": None, "presets": "p"}
        _write(root / "suite.json", common)
        for task_name, values in scores.items():
            task = GLUE[task_name]
            splits = [split for split, file in task.splits.items() if file.labelled]
            share = 2 if task_name in partial else 1
            rows = {split: task.splits[split].rows for split in splits}
            record = {
                "task": task_name,
                "start": "encoder",
                "settings": {
                    "seeds": list(range(1, len(values) + 1)), "epochs": 2, "learning_rate": 3e-4, "dropout": 0.1,
                    "batch_size": 16,
                },
                "source": "a test",
                "command": f"squeezebert finetune --task {task_name}",
                "data": {split: {"rows": rows[split] // share, "official": rows[split]} for split in splits},
                "examples": 1000,
                "versions": {"torch": "2.13"},
                "finished": "2026-11-20 12:00 UTC",
            }  # fmt: skip
            _write(root / task_name / "record.json", record)
            seeds = [
                {
                    "seed": seed,
                    "seconds": 10.0,
                    "figures": {split: dict.fromkeys(task.metrics, value) for split in splits if split != "train"},
                }
                for seed, value in enumerate(values, start=1)
            ]
            _write(root / task_name / "metrics.json", {"seeds": seeds})
        return root

    return write


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _row(card: dict[str, Any], label: str) -> dict[str, Any]:
    return next(row for row in card["rows"] if row["label"] == label)


def test_the_papers_test_figures_have_the_mean_that_the_leaderboard_lists() -> None:
    figures = {row.label: row.test.value for row in ROWS if row.test is not None}
    mnli = (figures.pop("MNLI-m") + figures.pop("MNLI-mm")) / 2
    # 78.1 is listed apart from the tasks' figures, so they hang together.
    assert round((mnli + sum(figures.values())) / 9, 1) == 78.1


def test_figures_from_memory_are_marked() -> None:
    assert {row.label for row in ROWS if row.test is not None and not row.test.confirmed} == {"STS-B", "WNLI"}
    assert not any(row.dev.confirmed for row in ROWS if row.dev is not None)
    # The mean of the eight dev figures, as the same source prints it.
    dev = [row.dev.value for row in ROWS if row.dev is not None]
    assert round(sum(dev) / 8, 2) == 86.01


def test_mean_deviation_gaps_and_completeness(write_suite: Callable[..., Path]) -> None:
    card = score_suites([read_suite(write_suite())])
    rte = _row(card, "RTE")["ours"]["ours"]
    assert (rte["mean"], rte["sd"]) == (pytest.approx(62.0), pytest.approx(2.0))
    assert rte["gap_to_paper_dev"] == pytest.approx(62.0 - 71.8)
    assert rte["gap_to_paper_test"] == pytest.approx(62.0 - 73.2)
    assert rte["complete"] is True
    mnli = _row(card, "MNLI-mm")["ours"]["ours"]
    assert (mnli["mean"], mnli["sd"], mnli["complete"]) == (pytest.approx(70.0), None, False)
    # The source does not name the metric.
    assert _row(card, "MRPC")["ours"]["ours"]["gap_to_paper_dev"] is None
    assert _row(card, "CoLA")["paper_dev_plain"] is None


def test_the_mean_leaves_out_tasks_on_part_of_their_data(write_suite: Callable[..., Path]) -> None:
    mean = score_suites([read_suite(write_suite())])["mean"]
    assert mean["tasks"] == ["cola", "sst2", "mrpc", "stsb", "rte", "wnli"]
    assert not mean["all_nine"]
    assert mean["ours"]["ours"]["mean"] == pytest.approx((42 + 91 + 82 + 85 + 62 + 50) / 6)
    # The means of the seeds are 405/6, 412/6 and 419/6.
    assert mean["ours"]["ours"]["sd"] == pytest.approx(7 / 6)
    assert mean["paper_test_bells"]["value"] == pytest.approx((46.5 + 91.4 + 87.8 + 86.7 + 73.2 + 65.1) / 6)
    assert mean["paper_test_bells"]["confirmed"] is False


def test_of_nine_complete_tasks_mnli_counts_once(write_suite: Callable[..., Path]) -> None:
    mean = score_suites([read_suite(write_suite(partial=()))])["mean"]
    assert mean["all_nine"]
    assert mean["ours"]["ours"]["mean"] == pytest.approx((42 + 91 + 82 + 85 + 80 + 70 + 83 + 62 + 50) / 9)
    assert mean["paper_test_bells"]["value"] == pytest.approx(78.07, abs=0.005)


def test_half_of_a_dev_set_makes_a_task_incomplete(write_suite: Callable[..., Path]) -> None:
    folder = write_suite(partial=())
    path = folder / "rte" / "record.json"
    record = json.loads(path.read_text())
    record["data"]["validation"]["rows"] -= 1
    path.write_text(json.dumps(record))
    assert not read_suite(folder).complete("rte")
    assert "276 of 277 rows" in to_markdown(score_suites([read_suite(folder)]))


def test_gains_are_paired_by_seed(write_suite: Callable[..., Path]) -> None:
    first = write_suite("plain")
    other = write_suite("bells", {**_SCORES, "rte": [0.61, 0.64, 0.67, 0.9], "qqp": [0.8]})
    card = score_suites([read_suite(first), read_suite(other)])
    gain = _row(card, "RTE")["ours"]["bells"]["gain_over_first"]
    # 1, 2 and 3 points; the fourth seed has no partner.
    assert (gain["mean"], gain["sd"], gain["seeds"]) == (pytest.approx(2.0), pytest.approx(1.0), [1, 2, 3])
    assert _row(card, "RTE")["ours"]["plain"]["gain_over_first"] is None
    text = to_markdown(card)
    assert "| RTE | +2.0 ± 1.0 (seeds 1, 2, 3) |" in text


def test_the_table_marks_what_does_not_compare(write_suite: Callable[..., Path]) -> None:
    text = to_markdown(score_suites([read_suite(write_suite())]))
    assert "| RTE | accuracy | 62.0 ± 2.0 | 71.8 ? | 73.2 |" in text
    assert "| MNLI-m | accuracy | 70.0 † | 82.9 ? | 82.0 |" in text
    assert "| QQP | mean of accuracy and F1 | 80.0 † | 89.4 ? (accuracy) | 80.3 |" in text
    assert "| MRPC | mean of accuracy and F1 | 82.0 ± 2.0 | 89.8 ? (metric not told) | 87.8 |" in text
    assert "| **mean of 6 complete** |" in text
    assert "| mnli | 196,351 of 392,702 rows (50.0 %) |" in text
    assert "| **all** |  |  | 9,000 | 210 |  |" in text
    assert "SHA-256 of config and weights `ab12`" in text
    assert "squeezebert finetune --task rte" in text


def test_a_suite_in_the_making_has_a_scorecard_too(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_suite(scores={"mnli": [0.7]})
    write_scorecard([read_suite(folder)], tmp_path / "card")
    card = json.loads((tmp_path / "card" / "scorecard.json").read_text())
    assert card["mean"] is None
    assert _row(card, "RTE")["ours"] == {}
    assert (tmp_path / "card" / "scorecard.png").read_bytes().startswith(b"\x89PNG")
    assert "| RTE | accuracy |  | 71.8 ? | 73.2 |" in (tmp_path / "card" / "scorecard.md").read_text()


def test_folders_that_are_no_suites(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no suite\.json, so this is no GLUE suite"):
        read_suite(tmp_path)
    with pytest.raises(InputError, match="no task is finished"):
        read_suite(write_suite("empty", {}))
    suite = read_suite(write_suite())
    with pytest.raises(InputError, match="two folders have the name ours"):
        score_suites([suite, suite])
