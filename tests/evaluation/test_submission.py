from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from squeezebert.data.tasks import GLUE
from squeezebert.errors import InputError
from squeezebert.evaluation.submission import FILES, answer, check_submission, read_test_set, to_words, write_submission

# The benchmark's own row counts and words, typed here apart from the package's tables.
ROWS = {
    "CoLA.tsv": 1063, "SST-2.tsv": 1821, "MRPC.tsv": 1725, "STS-B.tsv": 1379, "QQP.tsv": 390965, "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847, "QNLI.tsv": 5463, "RTE.tsv": 3000, "WNLI.tsv": 146, "AX.tsv": 1104,
}  # fmt: skip
WORDS = {
    **{name: {"0", "1"} for name in ("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "QQP.tsv", "WNLI.tsv")},
    **{name: {"entailment", "not_entailment"} for name in ("QNLI.tsv", "RTE.tsv")},
    **{name: {"entailment", "neutral", "contradiction"} for name in ("MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv")},
    "STS-B.tsv": set(),
}

Write = Callable[..., Path]


def _content(name: str) -> str:
    word = min(WORDS[name], default="2.500")
    return "index\tprediction\n" + "".join(f"{index}\t{word}\n" for index in range(ROWS[name]))


@pytest.fixture(scope="module")
def contents() -> dict[str, str]:
    return {name: _content(name) for name in ROWS}


@pytest.fixture
def write(tmp_path: Path, contents: dict[str, str]) -> Write:
    """A function that writes a good zip, but for the files given; None leaves one out."""

    def write(**changes: str | None) -> Path:
        with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
            for name, text in {**contents, **changes}.items():
                if text is not None:
                    archive.writestr(name, text)
        return tmp_path / "submission.zip"

    return write


def test_the_eleven_files_have_the_benchmarks_rows_and_words() -> None:
    assert {file.name: file.rows for file in FILES} == ROWS
    assert {file.name: set(file.words) for file in FILES} == WORDS
    # Of two classes, 1 is the acceptable, positive, equivalent, duplicate and entailed.
    assert [GLUE[name].labels[1] for name in ("cola", "sst2", "mrpc", "qqp", "wnli")] == [
        "acceptable", "positive", "equivalent", "duplicate", "entailment",
    ]  # fmt: skip


def test_a_good_zip_passes(write: Write) -> None:
    assert check_submission(write()) == []


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("WNLI.tsv", lambda text: None, "WNLI.tsv: (missing)"),
        ("WNLI.tsv", lambda text: text.replace("index\t", "id\t", 1), "WNLI.tsv:1: the header is 'id\\tprediction'"),
        ("WNLI.tsv", lambda text: "", "WNLI.tsv:1: the header is ''"),
        ("WNLI.tsv", lambda text: text[: text.rindex("145")], "WNLI.tsv: 145 rows, not 146"),
        ("WNLI.tsv", lambda text: text + "146\t0\n", "WNLI.tsv: 147 rows, not 146"),
        (
            "WNLI.tsv",
            lambda text: text.replace("\n7\t0", "\n7\tentailment"),
            "WNLI.tsv:9: 'entailment' is none of 0, 1",
        ),
        ("WNLI.tsv", lambda text: text.replace("\n7\t0", "\n8\t0"), "WNLI.tsv:9: index '8', not 7"),
        ("WNLI.tsv", lambda text: text.replace("\n7\t0", "\n7\t0\t1"), "WNLI.tsv:9: 3 columns, not 2"),
        ("WNLI.tsv", lambda text: text.replace("\n", "\r\n"), "WNLI.tsv:1: the header is"),
        (
            "RTE.tsv",
            lambda text: text.replace("\n0\tentailment", "\n0\t0"),
            "RTE.tsv:2: '0' is none of entailment, not",
        ),
        ("MNLI-m.tsv", lambda text: text.replace("\n5\tcontradiction", "\n5\tx"), "MNLI-m.tsv:7: 'x' is none of"),
        ("STS-B.tsv", lambda text: text.replace("\n0\t2.500", "\n0\t5.001"), "STS-B.tsv:2: '5.001' is not a number"),
        ("STS-B.tsv", lambda text: text.replace("\n0\t2.500", "\n0\t-0.1"), "STS-B.tsv:2: '-0.1' is not a number"),
        ("STS-B.tsv", lambda text: text.replace("\n0\t2.500", "\n0\tnan"), "STS-B.tsv:2: 'nan' is not a number"),
    ],
)
def test_each_fault_is_one_line(
    write: Write, contents: dict[str, str], name: str, change: Callable[[str], str | None], problem: str
) -> None:
    (found,) = check_submission(write(**{name: change(contents[name])}))
    assert found.startswith(problem)


def test_many_bad_rows_are_told_shortly(write: Write, contents: dict[str, str]) -> None:
    found = check_submission(write(**{"RTE.tsv": contents["RTE.tsv"].replace("\tentailment", "\t1")}))
    assert len(found) == 4
    assert found[-1] == "RTE.tsv: and 2,997 more bad rows"


def test_files_too_many_or_in_a_folder_are_named(write: Write, contents: dict[str, str]) -> None:
    found = check_submission(write(**{"AX.tsv": None, "glue/AX.tsv": contents["AX.tsv"], "SNLI.tsv": "x"}))
    assert [line.split(":")[0] for line in found] == ["glue/AX.tsv", "SNLI.tsv", "AX.tsv"]


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no zip")
    with pytest.raises(InputError, match=r"x\.zip: not a zip that can be read"):
        check_submission(tmp_path / "x.zip")
    with pytest.raises(InputError, match=r"y\.zip: no such file"):
        check_submission(tmp_path / "y.zip")


def test_logits_become_words() -> None:
    files = {file.name: file for file in FILES}
    assert to_words(files["MNLI-mm.tsv"], np.eye(3)) == ["entailment", "neutral", "contradiction"]
    assert to_words(files["RTE.tsv"], np.eye(2)) == ["entailment", "not_entailment"]
    assert to_words(files["CoLA.tsv"], np.eye(2)) == ["0", "1"]
    assert to_words(files["WNLI.tsv"], np.eye(2)) == ["0", "1"]
    assert to_words(files["STS-B.tsv"], np.array([[-0.2], [2.12345], [5.7]])) == ["0.000", "2.123", "5.000"]


def _predictions(*names: str) -> dict[str, list[str]]:
    return {name: [min(WORDS[name], default="1.000")] * ROWS[name] for name in names or ROWS}


def test_what_is_written_passes_and_repeats(tmp_path: Path) -> None:
    write_submission(tmp_path / "a.zip", _predictions())
    write_submission(tmp_path / "b.zip", _predictions())
    assert check_submission(tmp_path / "a.zip") == []
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_part_is_marked_as_incomplete(tmp_path: Path) -> None:
    write_submission(tmp_path / "part.zip", _predictions("RTE.tsv", "AX.tsv"))
    with zipfile.ZipFile(tmp_path / "part.zip") as archive:
        assert "CoLA.tsv, SST-2.tsv" in archive.read("INCOMPLETE.txt").decode()
    problems = check_submission(tmp_path / "part.zip")
    assert problems[0].startswith("INCOMPLETE.txt: ")
    assert problems[1:] == [f"{name}: (missing)" for name in ROWS if name not in ("RTE.tsv", "AX.tsv")]


def test_nothing_wrong_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"RTE\.tsv: 1 rows, not 3,000"):
        write_submission(tmp_path / "x.zip", {"RTE.tsv": ["entailment"]})
    assert list(tmp_path.iterdir()) == []


def _run(rows: Iterable[tuple[str, str | None]]) -> Iterator[np.ndarray]:
    for text, _ in rows:
        yield np.eye(2, dtype=np.float32)[int(text.endswith("yes"))]


def test_a_test_set_is_answered_row_by_row(tmp_path: Path) -> None:
    wnli = next(file for file in FILES if file.name == "WNLI.tsv")
    (tmp_path / "WNLI").mkdir()
    lines = [f"{index}\t{'yes' if index % 3 else 'no'}\tb\n" for index in range(146)]
    (tmp_path / "WNLI" / "test.tsv").write_text("index\tsentence1\tsentence2\n" + "".join(lines))
    labels = ("not_entailment", "entailment")
    rows = read_test_set(wnli, tmp_path)
    answers = answer(wnli, rows, _run, kind="single_label", labels=labels)
    assert answers == ["1" if index % 3 else "0" for index in range(146)]
    with pytest.raises(InputError, match="not the task's"):
        answer(wnli, rows, _run, kind="single_label", labels=labels[::-1])
    with pytest.raises(InputError, match="not the task's"):
        answer(wnli, rows, _run, kind="regression", labels=("LABEL_0",))
    (tmp_path / "WNLI" / "test.tsv").write_text("index\tsentence1\tsentence2\n" + "".join(lines[1:]))
    with pytest.raises(InputError, match="145 rows, but the server expects 146"):
        read_test_set(wnli, tmp_path)
