from __future__ import annotations

import csv
import gzip
import io
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.data.examples import Example
from squeezebert.data.tables import METRICS, Columns, Row, derive_task, encode_label, iter_rows, load_table
from squeezebert.data.tasks import GLUE, Kind, Task
from squeezebert.errors import InputError
from squeezebert.evaluation.metrics import METRICS as KNOWN_METRICS

_COLUMNS = Columns("text", label="label")


def _rows(path: Path, content: str | bytes, columns: Columns = _COLUMNS) -> list[tuple[Any, ...]]:
    """Write ``content``, read it, and give (line, text, pair, label) of each row."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = list(iter_rows(path, columns))
    assert all(row.where.startswith(f"{path}:") for row in rows)
    return [(row.where.removeprefix(f"{path}:"), row.text, row.pair, row.label) for row in rows]


def _error(call: Any, *arguments: Any, **settings: Any) -> str:
    """The message of the InputError that the call must raise; it has one line."""
    with pytest.raises(InputError) as caught:
        list(call(*arguments, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_csv_numbers_rows_by_their_first_physical_line(tmp_path: Path) -> None:
    content = 'text,id,label\r\n"a, ""b""\nc",7,x\r\n\r\nd,8,y\r\n"",9,\r\n'
    expected = [("2", 'a, "b"\nc', None, "x"), ("5", "d", None, "y"), ("6", "", None, "")]
    assert _rows(tmp_path / "a.csv", content) == expected
    assert _rows(tmp_path / "mark.CSV", "\ufeff" + content) == expected
    assert _rows(tmp_path / "a.csv.gz", gzip.compress(content.encode())) == expected
    zstandard = pytest.importorskip("zstandard")
    assert _rows(tmp_path / "a.csv.zst", zstandard.compress(content.encode())) == expected


def test_pairs_and_unlabelled(tmp_path: Path) -> None:
    content = "b,a\nsecond,first\n"
    assert _rows(tmp_path / "a.csv", content, Columns("a", "b")) == [("2", "first", "second", None)]
    assert _rows(tmp_path / "a.csv", content, Columns("a")) == [("2", "first", None, None)]


def test_tsv_is_never_quoted(tmp_path: Path) -> None:
    content = 'text\tlabel\n"a\tx\n\'\' "b" \u2028c\ty\r\n\n'
    assert _rows(tmp_path / "a.tsv", content) == [("2", '"a', None, "x"), ("3", "'' \"b\" \u2028c", None, "y")]


def test_tsv_of_one_column_may_hold_empty_texts(tmp_path: Path) -> None:
    rows = _rows(tmp_path / "a.tsv", "\ntext\n\na\n\n\nb", Columns("text"))
    assert [row[:2] for row in rows] == [("3", ""), ("4", "a"), ("5", ""), ("6", ""), ("7", "b")]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
def test_json_lines_keep_the_types_of_labels(tmp_path: Path, suffix: str) -> None:
    labels: list[Any] = ["x", 3, 2.5, True, False, None, ["a", "b"], []]
    lines = [json.dumps({"more": {}, "label": label, "text": "a\n"}) for label in labels]
    rows = _rows(tmp_path / f"a{suffix}", "\n\n".join(lines))
    assert [row[:2] for row in rows] == [(str(2 * number + 1), "a\n") for number in range(len(labels))]
    assert [row[3] for row in rows] == ["x", 3, 2.5, True, False, None, ["a", "b"], []]


def test_null_text_is_empty(tmp_path: Path) -> None:
    assert _rows(tmp_path / "a.jsonl", '{"text": null, "label": "x"}') == [("1", "", None, "x")]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "text": pa.array(["a\n", None, "c"]).dictionary_encode(),
            "label": pa.array([1.0, None, 2.0]),
            "tags": pa.array([["x"], [], None]),
        }
    )
    parquet.write_table(table, path)
    rows = list(iter_rows(path, _COLUMNS))
    assert rows == [
        Row("a\n", None, 1.0, f"{path}: row 1"),
        Row("", None, None, f"{path}: row 2"),
        Row("c", None, 2.0, f"{path}: row 3"),
    ]
    assert [row.label for row in iter_rows(path, Columns("text", label="tags"))] == [["x"], [], None]
    assert [row.pair for row in iter_rows(path, Columns("text", "text"))] == ["a\n", "", "c"]
    assert _error(iter_rows, path, Columns("text", label="nope")) == (
        f"{path}: no column 'nope'; there are 'text', 'label', 'tags'"
    )
    assert _error(iter_rows, path, Columns("label")) == f"{path}: row 1: column 'label' holds 1.0, not text"
    whole = path.read_bytes()
    for broken in (b"", b"text,label\n", whole[:-20], whole[:4] + bytes(60) + whole[64:]):
        path.write_bytes(broken)
        assert f"{path}: not a sound parquet file" in _error(iter_rows, path, _COLUMNS)


_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
_LABELS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(st.lists(st.tuples(_TEXTS, _LABELS)))
def test_any_csv_that_python_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]]
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    lines = []
    for row in [("text", "label"), *table]:
        lines.append(buffer.getvalue().count("\n") + 1)
        writer.writerow(row)
    rows = _rows(tmp_path_factory.mktemp("csv") / "a.csv", buffer.getvalue())
    assert rows == [(str(line), text, None, label) for line, (text, label) in zip(lines[1:], table, strict=True)]


@given(st.lists(st.tuples(_TEXTS, _LABELS), min_size=1), st.booleans())
def test_any_json_lines_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]], ascii_only: bool
) -> None:
    content = "".join(
        json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) + "\n" for text, label in table
    )
    rows = _rows(tmp_path_factory.mktemp("json") / "a.jsonl", content)
    assert rows == [(str(line), text, None, label) for line, (text, label) in enumerate(table, start=1)]


_TSV_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\t\n\r"))


@given(st.lists(st.tuples(_TSV_TEXTS, _TSV_TEXTS)))
def test_any_tsv_is_read_back(tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]]) -> None:
    content = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *table])
    rows = _rows(tmp_path_factory.mktemp("tsv") / "a.tsv", content)
    assert rows == [(str(line), text, None, label) for line, (text, label) in enumerate(table, start=2)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_long_texts_pass(tmp_path: Path, suffix: str) -> None:
    text = "x" * 1_000_000
    content = {
        ".csv": f'text,label\n"{text}",y\n',
        ".tsv": f"text\tlabel\n{text}\ty\n",
        ".jsonl": json.dumps({"text": text, "label": "y"}),
    }[suffix]
    assert [row[1:] for row in _rows(tmp_path / f"a{suffix}", content)] == [(text, None, "y")]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".csv.gz"])
def test_reading_takes_constant_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    line = {".tsv": "text\tlabel", ".jsonl": '{"text": "%s", "label": "y"}' % ("x" * 1000)}.get(suffix, "text,label")
    row = {".tsv": "x" * 1000 + "\ty", ".jsonl": line}.get(suffix, "x" * 1000 + ",y")
    content = f"{line}\n" + f"{row}\n" * 5_000
    path.write_bytes(gzip.compress(content.encode(), 1) if suffix.endswith("gz") else content.encode())
    rows = iter_rows(path, _COLUMNS)
    next(rows)
    tracemalloc.start()
    try:
        count = sum(1 for _ in rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count >= 4_999
    assert len(content) > 5_000_000
    assert peak < 500_000


@pytest.mark.parametrize("name", ["a.txt", "a", "a.csv.bz2", "a.parquet.gz", "a.gz", ".csv"])
def test_unknown_suffix_is_said_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text,label\n")
    with pytest.raises(InputError, match="the name does not tell the format"):
        iter_rows(tmp_path / name, _COLUMNS)


def test_missing_file_and_folder_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        iter_rows(tmp_path / "none.csv", _COLUMNS)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="this is a folder"):
        iter_rows(tmp_path / "folder.csv", _COLUMNS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", ": the file is empty"),
        ("a.csv", "text,label\na,é\n".encode("latin-1"), ":2: byte 3 of the line (0xe9) is not UTF-8"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0", ":1: byte 1 of the line (0x89) is not UTF-8"),
        ("a.csv", b"text,label\na\0,x\n", ":2: holds a NUL byte"),
        ("a.csv", b"a,b\n", ":1: no column 'text'; there are 'a', 'b'"),
        ("a.csv", b"text;label\n", ":1: no column 'text'; there are 'text;label'"),
        ("a.csv", b"text,label,text\n", ":1: 2 columns are called 'text'"),
        ("a.csv", b"text,label\na,x\nb\n", ":3: 1 fields where the header has 2"),
        ("a.csv", b"text,label\na, b,x\n", ":2: 3 fields where the header has 2; a text that holds a comma must stand"),
        ("a.csv", b'text,label\n"a\nb",x\n"c,x\nd,x\n', ":4: the double quote that opens in this row is never closed"),
        ("a.csv", b'text,label\n"a"b,x\n', ":2: not valid CSV"),
        ("a.csv", b"text,label\ra,x\r", ":1: a carriage return that ends no line"),
        ("a.tsv", b"", ": the file is empty"),
        ("a.tsv", b"a\tb\n", ":1: no column 'text'; there are 'a', 'b'"),
        ("a.tsv", b"text\tlabel\na\n", ":2: 1 fields where the header has 2"),
        ("a.tsv", b'text\tlabel\n"a\tb"\tx\n', ":2: 3 fields where the header has 2; TSV is read without quoting"),
        ("a.jsonl", b"", ": the file is empty"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "a"\n', ":2: not valid JSON"),
        ("a.jsonl", b'[{"text": "a", "label": 1}]\n', ":1: a JSON array, not an object"),
        ("a.jsonl", b"3\n", ":1: a JSON number, not an object"),
        ("a.jsonl", b"null\n", ":1: a JSON null, not an object"),
        ("a.jsonl", b'{"text": "a"}\n', ":1: no field 'label'; there are 'text'"),
        ("a.jsonl", b"{}\n", ":1: no field 'text'; there are none"),
        ("a.jsonl", b'{"text": ["a"], "label": 1}\n', ":1: column 'text' holds ['a'], not text"),
        (
            "a.jsonl",
            b'{"text": "a", "label": {}}\n',
            ":1: column 'label' holds {}; a label is text, a number or a list",
        ),
        ("a.jsonl", b'{"text": "\\ud83d", "label": 1}\n', ":1: column 'text' holds half a surrogate pair"),
        ("a.jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n", ":1: not valid JSON"),
        ("a.jsonl", b"[" * 100_000 + b"\n", ":1: not valid JSON"),
    ],
)
def test_bad_content_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert _error(iter_rows, path, _COLUMNS).startswith(f"{path}{message}")


def test_open_quote_does_not_swallow_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squeezebert.data.tables._LONGEST_FIELD", 5_000)
    before = csv.field_size_limit(5_000)
    try:
        (tmp_path / "a.csv").write_text('text,label\n"a,x\n' + "b,x\n" * 10_000)
        message = _error(iter_rows, tmp_path / "a.csv", _COLUMNS)
    finally:
        csv.field_size_limit(before)
    assert message.endswith("a.csv:2: a field of more than 5,000 characters; is a double quote left open?")


def test_rows_before_a_bad_one_are_given(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\na,x\nb,y\nc\xff,x\n")
    rows = iter_rows(tmp_path / "a.csv", _COLUMNS)
    assert [next(rows).text, next(rows).text] == ["a", "b"]
    with pytest.raises(InputError, match="csv:4: byte 2"):
        next(rows)


def _load(folder: Path, content: str, **settings: Any) -> tuple[Task, list[Example]]:
    path = folder / settings.pop("name", "a.csv")
    path.write_text(content, encoding="utf-8")
    return load_table(path, settings.pop("columns", _COLUMNS), **settings)


def test_every_kind_has_metrics_that_exist() -> None:
    for names in METRICS.values():
        assert set(names) <= KNOWN_METRICS.keys()


def test_single_label_task_is_derived(tmp_path: Path) -> None:
    task, examples = _load(tmp_path, "text,label\na,pos\nb, neg \nc,pos\n")
    assert (task.name, task.kind, task.labels, task.pair) == ("a.csv", "single_label", ("neg", "pos"), False)
    assert task.primary_metric in task.metrics
    assert examples == [Example("a", None, 1), Example("b", None, 0), Example("c", None, 1)]


def test_dev_table_takes_the_labels_of_the_training_table(tmp_path: Path) -> None:
    task, _ = _load(tmp_path, "text,label\na,x\nb,y\nc,z\nd,x\ne,y\nf,z\n")
    # One class only, and not all classes: fine in a dev set.
    same, examples = _load(tmp_path, "text,label\ng,z\n", task=task)
    assert same is task
    assert examples == [Example("g", None, 2)]
    message = _error(_load, tmp_path, "text,label\ng,z\nh,w\n", task=task)
    assert message.endswith("a.csv:3: label 'w' is not one of those trained on: 'x', 'y', 'z'")


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["10", "9", "b"], ("10", "9", "b")),
        (["b", "a", "B"], ("B", "a", "b")),
        ([1, 0, 1.0], ("0", "1")),
        ([0.5, 1.0, 0.5], ("0.5", "1")),
        ([True, "false"], ("false", "true")),
    ],
)
def test_classes_are_sorted(labels: list[Any], order: tuple[str, ...]) -> None:
    assert derive_task([(label, "here") for label in labels * 3], name="t").labels == order


def test_kind_is_never_guessed(tmp_path: Path) -> None:
    ratings = "text,label\na,1\nb,2\nc,3\nd,1\ne,2\nf,3\n"
    assert _load(tmp_path, ratings)[0].labels == ("1", "2", "3")
    task, examples = _load(tmp_path, ratings, kind="regression")
    assert (task.kind, task.labels, task.num_labels) == ("regression", (), 1)
    assert [example.label for example in examples] == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    assert all(isinstance(example.label, float) for example in examples)


def test_many_classes_look_like_numbers_to_predict(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"a,{number / 7}\n" for number in range(9))
    message = _error(_load, tmp_path, content)
    assert message.endswith(
        "a.csv: 9 different labels in 9 rows; to predict a number pass --regression, else check --label-column"
    )
    assert len(_load(tmp_path, content, kind="regression")[1]) == 9
    # Half the rows is the bound; two classes are always allowed.
    assert len(_load(tmp_path, "text,label\na,x\nb,y\n")[0].labels) == 2
    assert len(_load(tmp_path, "text,label\na,x\nb,y\nc,z\nd,x\ne,x\nf,x\n")[0].labels) == 3
    assert "3 different labels in 5 rows" in _error(_load, tmp_path, "text,label\na,x\nb,y\nc,z\nd,x\ne,x\n")


def test_multi_label_from_text_and_from_lists(tmp_path: Path) -> None:
    task, examples = _load(tmp_path, "text,label\na,x;y\nb,\nc, y ; \n", kind="multi_label")
    assert (task.kind, task.labels, task.num_labels) == ("multi_label", ("x", "y"), 2)
    assert [example.label for example in examples] == [(1, 1), (0, 0), (0, 1)]
    lists = '{"text": "a", "label": ["y", "x"]}\n{"text": "b", "label": []}\n{"text": "c", "label": "y"}\n'
    assert _load(tmp_path, lists, name="a.jsonl", kind="multi_label")[1] == examples
    assert [encode_label(task, label, "here") for label in (("y", "x"), (), {"y"})] == [(1, 1), (0, 0), (0, 1)]
    assert derive_task([(("y", "x"), "a"), (frozenset("y"), "b")], name="t", kind="multi_label").labels == ("x", "y")
    assert "label 'z' is not one of those trained on: 'x', 'y'" in _error(
        _load, tmp_path, "text,label\na,x;z\n", task=task
    )
    numbers = '{"text": "a", "label": [10, 9]}\n'
    assert _load(tmp_path, numbers, name="a.jsonl", kind="multi_label")[0].labels == ("9", "10")


@pytest.mark.parametrize(
    ("known", "label", "index"),
    [
        (("False", "True"), True, 1),
        (("false", "true"), "TRUE", 1),
        (("False", "True", "true"), True, 2),
        (("1.0", "2.0"), 1, 0),
        (("1.0", "2.0"), 2.0, 1),
        (("1", "2"), "2.00", 1),
        (("1", "1.0", "2"), "1.0", 1),
        (("-1", "0.5", "1"), "-1.0", 0),
        (("-1", "0.5", "1"), "+0.50", 1),
        (("0", "1"), "-0.0", 0),
        (("12345678901234567", "12345678901234568"), "12345678901234568.0", 1),
    ],
)
def test_a_label_is_found_in_the_spelling_of_another_format(known: tuple[str, ...], label: Any, index: int) -> None:
    settings: dict[str, Any] = {"name": "t", "labels": known, "metrics": (), "primary_metric": "", "pair": False}
    assert encode_label(Task(kind="single_label", **settings), label, "here") == index
    expected = tuple(int(place == index) for place in range(len(known)))
    assert encode_label(Task(kind="multi_label", **settings), [label], "here") == expected


@pytest.mark.parametrize(
    ("known", "label"),
    [
        (("TRUE", "True"), True),  # it might be either
        (("1.0", "1.00", "2"), 1),
        (("1", "2"), "01"),
        (("1", "2"), "1e0"),
        (("1", "2"), True),
        (("a", "b"), "A"),
    ],
)
def test_a_label_that_only_resembles_is_not_found(known: tuple[str, ...], label: Any) -> None:
    task = Task(name="t", kind="single_label", labels=known, metrics=(), primary_metric="", pair=False)
    assert "is not one of those trained on" in _error(encode_label, task, label, "here")


def test_pairs_must_match_the_task(tmp_path: Path) -> None:
    content = "text,more,label\na,,x\nb,c,y\n"
    pairs = Columns("text", "more", "label")
    task, examples = _load(tmp_path, content, columns=pairs)
    assert task.pair
    assert examples == [Example("a", "", 0), Example("b", "c", 1)]
    assert "takes pairs of texts; name the second column with --pair-column" in _error(
        _load, tmp_path, content, task=task
    )
    assert "takes single texts; leave out --pair-column" in _error(
        _load, tmp_path, content, columns=pairs, task=GLUE["sst2"]
    )


def test_unlabelled_table_needs_a_task(tmp_path: Path) -> None:
    columns = Columns("text")
    content = 'text\na\n""\n'
    assert _load(tmp_path, content, columns=columns, task=GLUE["sst2"])[1] == [Example("a"), Example("")]
    assert "training needs labels; name their column with --label-column" in _error(
        _load, tmp_path, content, columns=columns
    )


@pytest.mark.parametrize("label", ["nan", "inf", "-inf", "1e999", "1_000", "3,5", "", "good"])
def test_targets_must_be_finite_numbers(tmp_path: Path, label: str) -> None:
    message = _error(_load, tmp_path, f'text,label\na,1\nb,"{label}"\n', kind="regression")
    assert message.endswith(f"a.csv:3: the label {label!r} is not a finite number, which regression needs")


@pytest.mark.parametrize("label", ["1e30", "-1.1e18", "1e39"])
def test_targets_whose_squares_overflow_are_refused(tmp_path: Path, label: str) -> None:
    message = _error(_load, tmp_path, f"text,label\na,1\nb,{label}\n", kind="regression")
    assert message.endswith(f"a.csv:3: the label {label!r} is beyond ±1e18, too large to square in fp32; scale it")
    _, examples = _load(tmp_path, "text,label\na,1e18\nb,-1e18\n", kind="regression")
    assert [example.label for example in examples] == [1e18, -1e18]


@pytest.mark.parametrize("label", [None, math.nan, 10**400, [1.0], [], (1.0,), {1.0}, True])
def test_targets_of_other_types_are_refused(label: Any) -> None:
    assert "which regression needs" in _error(derive_task, [(1.0, "a"), (label, "b")], name="t", kind="regression")


@pytest.mark.parametrize(
    ("label", "kind", "message"),
    [
        ("", "single_label", "here: the label is missing"),
        (" ", "single_label", "here: the label is missing"),
        (None, "single_label", "here: the label is missing"),
        (math.nan, "single_label", "here: the label is missing"),
        (["a"], "single_label", "here: the label is a list; to predict several labels at once pass --multi-label"),
        (("a",), "single_label", "here: the label is a list; to predict several labels at once pass --multi-label"),
        ({"a"}, "single_label", "here: the label is a list; to predict several labels at once pass --multi-label"),
        *(
            (label, "multi_label", "here: names the label '1' twice; list the names of the row's labels, each once")
            for label in ([1, 0, 1], (1.0, 0.0, 1.0), ["1", 1], "1;0;1")
        ),
        (None, "multi_label", "here: the label is missing"),
        ([None], "multi_label", "here: the label is missing"),
        ([["a"]], "multi_label", "here: the label ['a'] is neither text nor a number"),
    ],
)
def test_bad_labels_are_named(label: Any, kind: Kind, message: str) -> None:
    assert _error(derive_task, [(label, "here"), ("a", "there")], name="t", kind=kind) == message
    task = Task(name="t", kind=kind, labels=("a", "b"), metrics=("accuracy",), primary_metric="accuracy", pair=False)
    assert _error(encode_label, task, label, "here") == message


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("text,label\n", None, "a.csv: there are no rows"),
        ("text,label\na,x\nb,x\n", None, "a.csv: every row has the label 'x'; training needs at least two classes"),
        ("text,label\na,2\nb,2.0\n", "regression", "a.csv: every row has the value 2, so there is nothing to learn"),
        ("text,label\na,\nb,;\n", "multi_label", "a.csv: no row has a label, so there is nothing to learn"),
        ("text,label\na,x\n  ,y\n", None, "a.csv:3: column 'text' is empty; fill it or remove the row"),
    ],
)
def test_tables_that_teach_nothing(tmp_path: Path, content: str, kind: Kind | None, message: str) -> None:
    assert _error(_load, tmp_path, content, kind=kind).removeprefix(f"{tmp_path}/") == message


def test_long_lists_of_labels_are_cut(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"a,l{number}\nb,l{number}\n" for number in range(30))
    task, _ = _load(tmp_path, content)
    assert _error(_load, tmp_path, "text,label\na,z\n", task=task).endswith("'l16', 'l17', ...")


def test_example_reviews() -> None:
    folder = Path(__file__).resolve().parents[2] / "examples" / "reviews"
    task, train = load_table(folder / "train.csv", _COLUMNS)
    _, dev = load_table(folder / "dev.csv", _COLUMNS, task=task)
    assert task.labels == ("negative", "positive")
    assert [sum(example.label == label for example in train) for label in (0, 1)] == [160, 160]
    assert [sum(example.label == label for example in dev) for label in (0, 1)] == [40, 40]
    assert len({example.text.lower() for example in train + dev}) == 400
