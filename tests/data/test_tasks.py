from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from squeezebert.data.examples import Example
from squeezebert.data.tasks import GLUE, Coverage, Task, coverage, get_task, load_split
from squeezebert.errors import InputError
from squeezebert.evaluation.metrics import METRICS

# From the table in the data folder's README: (train, dev, test), and what is missing there.
_AT_HAND = {
    "cola": (8_551, 1_043, 1_063),
    "sst2": (67_349, 872, 1_821),
    "mrpc": (3_668, 408, 1_725),
    "stsb": (5_749, 1_500, 1_379),
    "rte": (2_490, 277, 3_000),
    "wnli": (635, 71, 146),
    "qnli": (9_999, 5_463, 5_463),
}
_HEADERS = {
    "cola": "",
    "sst2": "sentence\tlabel",
    "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "mnli": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
    "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
    "qnli": "index\tquestion\tsentence\tlabel",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
}
_A, _B = 'He said "no', "she didn't"
# Task -> one row of train.tsv in the official layout, and what it says.
_ROWS = {
    "cola": (f"gj04\t0\t*\t{_A}", Example(_A, None, 0)),
    "sst2": (f"{_A} \t1", Example(f"{_A} ", None, 1)),
    "mrpc": (f"1\t70\t71\t{_A}\t{_B}", Example(_A, _B, 1)),
    "stsb": (f"0\tnews\tMSR\t2012\t0001\tnone\tnone\t{_A}\t{_B}\t3.800", Example(_A, _B, 3.8)),
    "qqp": (f"\t\t\t{_A}\t{_B}\t0", Example(_A, _B, 0)),
    "mnli": (f"5\t\t\t\t\t\t\t\t{_A}\t{_B}\t\tcontradiction", Example(_A, _B, 2)),
    "qnli": (f"0\t{_A}\t{_B}\tnot_entailment", Example(_A, _B, 1)),
    "rte": (f"0\t{_A}\t{_B}\tentailment", Example(_A, _B, 0)),
    "wnli": (f"0\t{_A}\t{_B}\t1", Example(_A, _B, 1)),
}


def _write(folder: Path, task: str, *rows: str, header: str | None = None, end: str = "\n") -> Path:
    """Write the task's train.tsv under the GLUE root ``folder``."""
    path = folder / GLUE[task].folder / "train.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = _HEADERS[task] if header is None else header
    path.write_bytes("".join(f"{line}{end}" for line in ([header] if header else []) + list(rows)).encode())
    return path


def test_the_table_is_glue() -> None:
    assert list(GLUE) == ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax"]
    for name, task in GLUE.items():
        assert task.name == name
        assert task.primary_metric in task.metrics
        assert set(task.metrics) <= METRICS.keys()
        assert len(task.text_columns) == len(task.hub_columns) == 1 + task.pair
        assert task.num_labels == (1 if task.kind == "regression" else len(task.labels))
        assert len(task.file_labels) in (0, len(task.labels))
    # The sum of num_examples over the ten sets of the hub's dataset_infos.json.
    assert sum(split.rows for task in GLUE.values() for split in task.splits.values()) == 1_445_753
    assert GLUE["stsb"].num_labels == 1
    # The order on the hub, which differs between tasks.
    assert GLUE["mnli"].labels == GLUE["ax"].labels == ("entailment", "neutral", "contradiction")
    assert GLUE["qnli"].labels == GLUE["rte"].labels == ("entailment", "not_entailment")
    assert GLUE["wnli"].labels == ("not_entailment", "entailment")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("sst2", "sst2"), ("SST-2", "sst2"), ("sst_2", "sst2"), ("STS-B", "stsb"), ("CoLA", "cola"), ("diagnostic", "ax")],
)
def test_tasks_are_found_in_any_spelling(spelling: str, name: str) -> None:
    assert get_task(spelling).name == name


def test_unknown_task_lists_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no GLUE task 'sst5'; there are cola, sst2, .*, ax"):
        get_task("sst5")


@pytest.mark.parametrize("name", _ROWS)
def test_official_layout_is_read(tmp_path: Path, name: str) -> None:
    row, expected = _ROWS[name]
    _write(tmp_path, name, row, row)
    assert load_split(GLUE[name], "train", tmp_path) == [expected, expected]
    assert load_split(GLUE[name], "train", tmp_path / GLUE[name].folder) == [expected, expected]


def test_line_ends_of_windows_blank_lines_and_odd_separators_in_texts(tmp_path: Path) -> None:
    _write(tmp_path, "sst2", "a\x85b\u2028c\rd\t1", "", "e\t0", "", end="\r\n")
    assert load_split(GLUE["sst2"], "train", tmp_path) == [Example("a\x85b\u2028c\rd", None, 1), Example("e", None, 0)]


def test_test_splits_are_unlabelled(tmp_path: Path) -> None:
    for task, file, content in (
        # CoLA's test file has a header, unlike its others; MRPC's has an index in the label's place.
        ("cola", "test.tsv", "index\tsentence\n0\tA b\n"),
        ("mrpc", "test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tA b\tc\n"),
        ("mnli", "test_mismatched.tsv", "index\tsentence1\tsentence2\n0\tA b\tc\n"),
        ("ax", "diagnostic.tsv", "index\tsentence1\tsentence2\n0\tA b\tc\n"),
    ):
        path = tmp_path / GLUE[task].folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        split = "test_mismatched" if task == "mnli" else "test"
        assert load_split(GLUE[task], split, tmp_path) == [Example("A b", "c" if GLUE[task].pair else None, None)]


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("sst2", "no tab", "train.tsv:2: 1 tab-separated columns where 2 are needed"),
        ("sst2", "a\t2", "train.tsv:2: label '2' is not one of 0, 1"),
        ("sst2", "a\tpositive", "train.tsv:2: label 'positive' is not one of 0, 1"),
        ("sst2", "a\t", "train.tsv:2: label '' is not one of 0, 1"),
        ("cola", "gj04\t1\t", "train.tsv:1: 3 tab-separated columns where 4 are needed"),
        (
            "mnli",
            "5\t\t\t\t\t\t\t\ta\tb\t\t-",
            "train.tsv:2: gold_label '-' is not one of entailment, neutral, contradic",
        ),
        ("rte", "0\ta\tb\t1", "train.tsv:2: label '1' is not one of entailment, not_entailment"),
        *(
            ("stsb", "0\t\t\t\t\t\t\ta\tb\t" + score, f"train.tsv:2: score '{score}' is not a number")
            for score in ("nan", "inf", "", "good")
        ),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, task: str, row: str, message: str) -> None:
    _write(tmp_path, task, row)
    _fails(task, tmp_path, message)


def test_broken_rows_of_the_official_qqp_are_left_out_and_told(tmp_path: Path) -> None:
    row, expected = _ROWS["qqp"]
    broken = ["\t\t\tA question that", "goes on?\tAnother?\t0", "1\t2\t3\ta"]
    _write(tmp_path, "qqp", row, broken[0], broken[1], row, broken[2])
    assert load_split(GLUE["qqp"], "train", tmp_path) == [expected, expected]
    _write(tmp_path, "qqp", row, *broken, row, "4\t5\t6\tb")
    _fails("qqp", tmp_path, "train.tsv:7: 4 tab-separated columns where 6 are needed; the official file has 3 such row")
    assert coverage(GLUE["qqp"], "train", 363_846).describe() == (
        "363,846 rows, complete (without the official file's 3 broken rows)"
    )
    assert coverage(GLUE["qqp"], "train", 363_845).describe() == "363,845 of 363,846 rows (100.0 %)"
    # No other file has any.
    assert [
        (name, split) for name, task in GLUE.items() for split, file in task.splits.items() if file.broken_rows
    ] == [("qqp", "train")]
    path = _write(tmp_path, "qqp", row, broken[0])
    path.rename(path.with_name("dev.tsv"))
    _fails("qqp", tmp_path, "dev.tsv:3: 4 tab-separated columns where 6 are needed", split="validation")


def _fails(task: str, folder: Path, message: str, split: str = "train") -> None:
    with pytest.raises(InputError) as caught:
        load_split(GLUE[task], split, folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_headers_are_named(tmp_path: Path) -> None:
    _write(tmp_path, "sst2", "0\ta", header="label\ttext")
    _fails("sst2", tmp_path, "train.tsv:1: the header has no column 'sentence', so this is not GLUE's SST-2/train.tsv;")
    # The folder of another task.
    _write(tmp_path, "rte", "0\ta\tb\tentailment")
    _fails("mrpc", tmp_path / "RTE", "no column '#1 String'")
    _fails("cola", tmp_path / "SST-2", "train.tsv:1: 2 tab-separated columns where 4 are needed")
    _fails("wnli", tmp_path / "RTE", "label 'entailment' is not one of 0, 1")


def test_files_without_rows_and_not_text(tmp_path: Path) -> None:
    _write(tmp_path, "sst2")
    _fails("sst2", tmp_path, "train.tsv: no rows")
    (tmp_path / "SST-2" / "train.tsv").write_bytes(b"")
    _fails("sst2", tmp_path, "train.tsv: the file is empty")
    (tmp_path / "SST-2" / "train.tsv").write_bytes(b"sentence\tlabel\n\xff\t1\n")
    _fails("sst2", tmp_path, "train.tsv:2: byte 1 of the line (0xff) is not UTF-8")


def test_missing_file_says_where_it_looked_and_how_to_get_it(tmp_path: Path) -> None:
    remedy = f"squeezebert glue download sst2 --output {tmp_path}"
    for folder in (tmp_path, tmp_path / "SST-2"):
        _fails("sst2", folder, f"no train.tsv in {folder / 'SST-2'} nor in {folder}; fetch it with: {remedy}")


@pytest.mark.parametrize("task", ["sst2", "cola"])
def test_a_file_of_one_line_is_told_in_one_short_line(tmp_path: Path, task: str) -> None:
    path = _write(tmp_path, task, *(f"text {number}\t1" for number in range(1000)), end="\r")
    with pytest.raises(InputError) as caught:
        load_split(GLUE[task], "train", tmp_path)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    _fails("mnli", tmp_path, "it has train, validation, validation_mismatched, test, test_mismatched", split="dev")
    _fails("ax", tmp_path, "ax has no split 'train'; it has test")
    own = Task(name="own", kind="regression", metrics=("pearson",), primary_metric="pearson", pair=False)
    with pytest.raises(InputError, match="own is not a GLUE task"):
        load_split(own, "train", tmp_path)


def test_coverage_tells_a_part_from_the_whole() -> None:
    assert coverage(GLUE["sst2"], "validation", 872) == Coverage(872, 872)
    assert coverage(GLUE["sst2"], "validation", 872).complete
    assert coverage(GLUE["sst2"], "validation", 872).describe() == "872 rows, complete"
    part = coverage(GLUE["mnli"], "train", 19_734)
    assert not part.complete
    assert part.describe() == "19,734 of 392,702 rows (5.0 %)"
    # QNLI's first release had more rows, and its scores do not compare either.
    first = coverage(GLUE["qnli"], "train", 108_436)
    assert not first.complete
    assert first.describe() == "108,436 of 104,743 rows (103.5 %)"


@pytest.mark.parametrize("name", _AT_HAND)
def test_row_counts(shared_data: Path, name: str) -> None:
    task = GLUE[name]
    for split, rows in zip(("train", "validation", "test"), _AT_HAND[name], strict=True):
        examples = load_split(task, split, shared_data / "glue")
        assert len(examples) == rows
        assert coverage(task, split, rows).complete == ((name, split) != ("qnli", "train"))
        assert all((example.pair is not None) == task.pair for example in examples)
        assert all((example.label is not None) == (split != "test") for example in examples)


@pytest.mark.parametrize(
    ("name", "split", "rows", "complete"),
    [
        ("mnli", "train", 19_734, False),
        ("mnli", "validation", 4_908, False),
        ("mnli", "validation_mismatched", 4_916, False),
        ("qqp", "train", 41_999, False),
        ("qqp", "validation", 20_215, False),
        ("ax", "test", 1_104, True),
    ],
)
def test_row_counts_of_the_others(shared_data: Path, name: str, split: str, rows: int, complete: bool) -> None:
    examples = load_split(GLUE[name], split, shared_data / "glue" / GLUE[name].folder)
    assert len(examples) == rows
    assert coverage(GLUE[name], split, rows).complete == complete


def test_labels_of_known_rows(shared_data: Path) -> None:
    root = shared_data / "glue"
    assert load_split(GLUE["sst2"], "validation", root)[0] == Example(
        "it 's a charming and often affecting journey . ", None, GLUE["sst2"].labels.index("positive")
    )
    assert load_split(GLUE["rte"], "train", root)[0] == Example(
        "No Weapons of Mass Destruction Found in Iraq Yet.",
        "Weapons of Mass Destruction Found in Iraq.",
        GLUE["rte"].labels.index("not_entailment"),
    )


class _Hub:
    """Stands in for the package ``datasets``."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: tuple[Any, ...] = ()

    def load_dataset(self, name: str, config: str, *, split: str) -> Any:
        self.asked = (name, config, split)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def _use(monkeypatch: pytest.MonkeyPatch, answer: Any) -> _Hub:
    hub = _Hub(answer)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=hub.load_dataset))
    return hub


def test_hub_is_read_where_no_folder_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = _use(monkeypatch, [{"premise": "a", "hypothesis": "b", "label": 2, "idx": 0}])
    assert load_split(GLUE["mnli"], "validation", None) == [Example("a", "b", 2)]
    assert hub.asked == ("nyu-mll/glue", "mnli", "validation_matched")
    # The hub marks the hidden labels of test sets by -1.
    hub = _use(monkeypatch, [{"sentence": "a", "label": -1, "idx": 0}])
    assert load_split(GLUE["cola"], "test", None) == [Example("a", None, None)]
    assert hub.asked == ("nyu-mll/glue", "cola", "test")


def test_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, ConnectionError("Couldn't reach 'nyu-mll/glue'\nMore\nlines"))
    with pytest.raises(InputError, match=r"sst2: cannot read nyu-mll/glue .*Couldn't reach.*--data-dir") as caught:
        load_split(GLUE["sst2"], "train", None)
    assert "\n" not in str(caught.value)
