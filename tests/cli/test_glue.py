from __future__ import annotations

import functools
import hashlib
import re
import shlex
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from squeezebert import Classifier
from squeezebert.cli import build_parser, main
from squeezebert.data.glue_download import SOURCES, Source
from squeezebert.data.tasks import GLUE
from squeezebert.evaluation.submission import SubmissionFile

_CONTENT = b"index\tsentence1\tsentence2\n0\ta\tb\n"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server that has the diagnostics."""
    file = tmp_path / "server" / "glue" / "data" / "AX.tsv"
    file.parent.mkdir(parents=True)
    file.write_bytes(_CONTENT)
    source = Source("glue/data/AX.tsv", len(_CONTENT), hashlib.sha256(_CONTENT).hexdigest())
    monkeypatch.setitem(SOURCES, "ax", (source,))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=tmp_path / "server"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_download(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["glue", "download", "diagnostic", "--output", str(tmp_path / "glue"), "--base-url", url]
    assert main(command) == 0
    assert capsys.readouterr().out == f"ax: {tmp_path / 'glue' / 'diagnostic'} (fetched, SHA-256 checked)\n"
    assert (tmp_path / "glue" / "diagnostic" / "diagnostic.tsv").read_bytes() == _CONTENT
    assert main(command) == 0
    assert capsys.readouterr().out == f"ax: {tmp_path / 'glue' / 'diagnostic'} (already there)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sst5"], "there is no GLUE task 'sst5'; there are cola, sst2"),
        (["ax", "--base-url", "nowhere"], "--base-url nowhere: not an address"),
        (["wnli"], "HTTP 404"),
        (["ax", "--output", "{file}/glue"], "{file}"),
    ],
)
def test_bad_input_is_one_line(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    arguments = [argument.format(file=tmp_path / "file") for argument in arguments]
    assert main(["glue", "download", "--output", str(tmp_path / "glue"), "--base-url", url, *arguments]) == 2
    output = capsys.readouterr()
    assert message.format(file=tmp_path / "file") in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_progress_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from squeezebert.cli.glue import _Line
    from squeezebert.data.glue_download import Progress

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    line = _Line()
    line._interval = 0.0
    line.show(Progress("CoLA.zip", 1_000_000, 4_000_000, 100_000.0))
    assert capsys.readouterr().err == "\rCoLA.zip: 1.0 of 4.0 MB, 0.10 MB/s, about 30 s left"
    line.clear()
    assert set(capsys.readouterr().err) == {"\r", " "}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, write_glue: Callable[..., Path]) -> Path:
    """A suite of two tasks, one step each, over tiny files that have test sets of five rows, but none of QQP."""
    root = tmp_path_factory.mktemp("suite")
    data = write_glue(root / "glue", test_rows=5)
    (data / "QQP" / "test.tsv").unlink()
    presets = root / "presets.toml"
    presets.write_text("".join(f'[{name}]\nsource = "a test"\nepochs = 1\n' for name in GLUE if name != "ax"))
    # As on the command line, tasks in any spelling.
    flags = ["--model", "tiny", "--data-dir", str(data), "--presets", str(presets), "--device", "cpu", "--seeds", "1"]
    assert main(["glue", "run", "--output", str(root / "out"), "--tasks", "MNLI", "sts-b", *flags]) == 0
    return root / "out"


def test_run_prints_the_scorecard(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["glue", "scorecard", str(suite), "--output", str(tmp_path / "card")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("| task | metric | out | paper, dev, plain |")
    assert said.count("†") == 3
    assert said.endswith(f"scorecard: {tmp_path / 'card' / 'scorecard.md'}\n")
    assert (tmp_path / "card" / "scorecard.md").read_text() == (suite / "scorecard.md").read_text()


def test_submit_names_what_is_missing_on_one_line(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["glue", "submit", str(suite), "--output", str(tmp_path / "x.zip")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no test set for QQP.tsv (squeezebert glue download qqp --output " in said
    assert "no finished run of cola, sst2, mrpc, qqp, qnli, rte, wnli (squeezebert glue run)" in said
    assert "--partial" in said
    assert not (tmp_path / "x.zip").exists()


def test_submit_answers_what_there_is(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["glue", "submit", str(suite), "--output", str(tmp_path / "x.zip"), "--partial", "--device", "cpu"]
    # The server's test sets are larger.
    assert main(flags) == 2
    assert "the test set has 5 rows, but the server expects 1,379" in capsys.readouterr().err
    monkeypatch.setattr(SubmissionFile, "rows", property(lambda self: 5))
    assert main(flags) == 0
    said = capsys.readouterr().out
    assert "QQP.tsv: left out (no test set)" in said
    assert "RTE.tsv: left out (no model of rte)" in said
    assert said.endswith("x.zip: 4 of 11 files (incomplete, so the server would refuse it)\n")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == ["STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv", "INCOMPLETE.txt"]
        lines = archive.read("AX.tsv").decode().split("\n")
        values = archive.read("STS-B.tsv").decode().split("\n")[1:-1]
    # What the model itself says of the diagnostics, in MNLI's words.
    classifier = Classifier.load(suite / "mnli", engine="torch", device="cpu")
    rows = (suite.parent / "glue" / "diagnostic" / "diagnostic.tsv").read_text().splitlines()[1:]
    texts, pairs = zip(*(row.split("\t")[1:3] for row in rows), strict=True)
    expected = [prediction.label for prediction in classifier.predict(texts, pairs)]
    assert lines == ["index\tprediction", *(f"{index}\t{label}" for index, label in enumerate(expected)), ""]
    assert all(0 <= float(line.split("\t")[1]) <= 5 for line in values)
    assert main(["glue", "check", str(tmp_path / "x.zip")]) == 1
    assert "x.zip: CoLA.tsv: (missing)" in capsys.readouterr().out


def test_submit_reads_all_test_sets_before_it_answers_one(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # All have the five rows that are expected here, but for the last.
    monkeypatch.setattr(SubmissionFile, "rows", property(lambda self: 5 + (self.name == "AX.tsv")))
    flags = ["glue", "submit", str(suite), "--output", str(tmp_path / "x.zip"), "--partial", "--device", "cpu"]
    assert main(flags) == 2
    said = capsys.readouterr()
    assert "ax: the test set has 5 rows, but the server expects 6" in said.err
    assert said.out == ""


def test_submit_needs_the_name_of_a_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["glue", "submit", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert f"{tmp_path}: is a folder; name the zip to write" in capsys.readouterr().err


def test_submit_needs_a_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["glue", "submit", str(tmp_path), "--output", str(tmp_path / "x.zip")]) == 2
    assert "no suite.json, so this is no GLUE suite" in capsys.readouterr().err


def test_bells_and_whistles_need_teachers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["glue", "run", "--model", "tiny", "--output", str(tmp_path / "out"), "--bells-and-whistles"]
    assert main(flags) == 2
    assert "name their folder with --teachers" in capsys.readouterr().err


def test_the_commands_of_the_docs_are_understood() -> None:
    docs = Path(__file__).parents[2] / "docs" / "glue.md"
    commands = re.findall(r"^    squeezebert (glue .*)$", docs.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 9
    actions = {build_parser("glue").parse_args(shlex.split(command)).action for command in commands}
    assert actions == {"download", "run", "search", "scorecard", "submit", "check"}
