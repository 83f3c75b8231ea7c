from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from squeezebert.errors import InputError
from squeezebert.runtime import Prediction
from squeezebert.runtime.output import PredictionFile

LABELS = ("no", 'a "quoted", one')
SETTINGS = {"--model": "m", "--batch-size": 32}


def prediction(i: int) -> Prediction:
    score = 0.5 + i / 7e2
    return Prediction(LABELS[i % 2], score, {LABELS[i % 2]: score, LABELS[1 - i % 2]: 1 - score})


def row(i: int) -> tuple[str, str | None]:
    return f"text {i}", f"second {i}" if i % 3 else None


def write(path: Path, rows: range, break_after: int | None = None, window: int = 4, **changes: Any) -> None:
    settings = {"labels": LABELS, "window": window, "settings": SETTINGS, **changes}
    with PredictionFile(path, **settings) as file:
        source = iter([row(i) for i in rows])
        file.skip(source, "in.csv")
        for i in list(rows)[file.rows :]:
            if i == break_after:
                raise KeyboardInterrupt
            file.write(next(source), prediction(i))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("break_after", [1, 3, 4, 5, 8, 9])
def test_broken_off_and_resumed_gives_the_same_bytes(tmp_path: Path, suffix: str, break_after: int) -> None:
    whole, broken = tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    write(whole, range(10))
    with pytest.raises(KeyboardInterrupt):
        write(broken, range(10), break_after)
    assert not broken.exists()
    with broken.with_name(f"{broken.name}.partial").open("a") as file:
        file.write('{"row": 11, "la')  # a row torn in writing
    write(broken, range(10), resume=True)
    assert broken.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {whole.name, broken.name}


def test_only_whole_windows_are_kept_when_going_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", range(20), break_after=11)
    assert (tmp_path / "out.csv.partial").read_text().count("\n") == 1 + 11  # all that was done can be read
    with PredictionFile(tmp_path / "out.csv", labels=LABELS, window=4, settings=SETTINGS, resume=True) as file:
        assert (file.rows, file.safe_rows) == (8, 8)


def test_rows_that_are_safe_are_known_while_writing(tmp_path: Path) -> None:
    with PredictionFile(tmp_path / "out.csv", labels=LABELS, window=4, settings=SETTINGS) as file:
        safe = []
        for i in range(9):
            file.write(row(i), prediction(i))
            safe.append(file.safe_rows)
    assert safe == [0, 0, 0, 4, 4, 4, 4, 8, 8]


@pytest.mark.parametrize("edited", [("text 7 ", "second 7"), ("text 7", None), ("text 7second 7", "")])
def test_input_that_was_edited_before_the_break_is_refused(
    tmp_path: Path, edited: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", range(20), break_after=11)
    original = row
    monkeypatch.setattr(sys.modules[__name__], "row", lambda i: edited if i == 7 else original(i))
    message = r"^in\.csv: its first 8 rows are not those .* remove .*out\.csv\.partial and out\.csv\.partial\.json"
    with pytest.raises(InputError, match=message):
        write(tmp_path / "out.csv", range(20), resume=True)
    # Behind the last whole window nothing is kept, so a row may be mended there.
    monkeypatch.setattr(sys.modules[__name__], "row", lambda i: edited if i == 8 else original(i))
    write(tmp_path / "out.csv", range(20), resume=True)
    assert (tmp_path / "out.csv").read_text().count("\n") == 21


def test_resumed_twice_and_edited_in_between_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for break_after in (5, 11):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "out.csv", range(20), break_after=break_after, resume=True)
    original = row
    monkeypatch.setattr(sys.modules[__name__], "row", lambda i: ("x", None) if i == 1 else original(i))
    with pytest.raises(InputError, match="first 8 rows are not those"):
        write(tmp_path / "out.csv", range(20), resume=True)


def test_shorter_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", range(20), break_after=11)
    with pytest.raises(InputError, match=r"^in\.csv: 7 rows, but .*out\.csv\.partial holds 8"):
        write(tmp_path / "out.csv", range(7), resume=True)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_suffix_in_capitals_is_the_same_format(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"lower{suffix}", range(6))
    write(tmp_path / f"upper{suffix.upper()}", range(6))
    assert (tmp_path / f"lower{suffix}").read_bytes() == (tmp_path / f"upper{suffix.upper()}").read_bytes()


def test_json_lines_hold_all_scores(tmp_path: Path) -> None:
    write(tmp_path / "out.jsonl", range(2))
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert first == {"row": 1, "label": "no", "score": 0.5, "scores": {"no": 0.5, LABELS[1]: 0.5}}
    assert (second["row"], second["label"], second["score"]) == (2, LABELS[1], 0.501429)


def test_csv_reads_back(tmp_path: Path) -> None:
    write(tmp_path / "out.csv", range(2))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "label", "score", "score_no", f"score_{LABELS[1]}"]
    assert rows[1]["label"] == LABELS[1]


def test_several_labels_and_none(tmp_path: Path) -> None:
    several, none = Prediction(("a", "b"), 0.9, {"a": 0.9, "b": 0.7}), Prediction((), 0.2, {"a": 0.2, "b": 0.1})
    for name in ("out.tsv", "out.jsonl"):
        with PredictionFile(tmp_path / name, labels=("a", "b"), window=4, settings={}) as file:
            file.write(("one", None), several)
            file.write(("two", None), none)
    expected = "row\tlabel\tscore\tscore_a\tscore_b\n1\ta;b\t0.9\t0.9\t0.7\n2\t\t0.2\t0.2\t0.1\n"
    assert (tmp_path / "out.tsv").read_text() == expected
    labels = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert labels == [["a", "b"], []]


def test_values_of_a_regression(tmp_path: Path) -> None:
    with PredictionFile(tmp_path / "out.csv", labels=(), window=4, settings={}) as file:
        file.write(("one", None), Prediction(2.5, 2.5, {}))
    assert (tmp_path / "out.csv").read_text() == "row,label,score\n1,2.5,2.5\n"


def test_interrupted_rows_are_not_overwritten_unasked(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", range(10), break_after=5)
    before = (tmp_path / "out.csv.partial").read_bytes()
    with pytest.raises(InputError, match="--resume"):
        write(tmp_path / "out.csv", range(10))
    assert (tmp_path / "out.csv.partial").read_bytes() == before


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", range(10), break_after=5)
    with pytest.raises(InputError, match="began with --batch-size 32, not 64"):
        write(tmp_path / "out.csv", range(10), resume=True, settings={**SETTINGS, "--batch-size": 64})


def test_a_partial_file_shorter_than_its_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", range(10), break_after=5)
    (tmp_path / "out.csv.partial").write_text("row,")
    with pytest.raises(InputError, match="4 bytes where"):
        write(tmp_path / "out.csv", range(10), resume=True)


def test_nothing_done_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", range(10), break_after=0)
    assert list(tmp_path.iterdir()) == []


def test_former_output_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("former")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", range(10), break_after=5)
    assert (tmp_path / "out.csv").read_text() == "former"
    write(tmp_path / "out.csv", range(10), resume=True)
    assert (tmp_path / "out.csv").read_text().startswith("row,label")


def test_resume_without_a_partial_file_begins(tmp_path: Path) -> None:
    write(tmp_path / "out.csv", range(3), resume=True)
    assert (tmp_path / "out.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("name", ["out.xlsx", "out", "out.json"])
def test_unknown_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"written to \.jsonl, \.csv, \.tsv"):
        write(tmp_path / name, range(1))


def test_failed_write_names_the_file_and_the_run_goes_on(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))  # as a disk that is full: a write past this fails
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write(tmp_path / "out.jsonl", range(40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "out.jsonl.partial")
    write(tmp_path / "out.jsonl", range(40), resume=True)
    write(tmp_path / "whole.jsonl", range(40))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
