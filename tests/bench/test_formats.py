"""The formats' benchmark: what it plans, what it writes and clocks, and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from squeezebert.bench import format_report, formats
from squeezebert.bench.formats import PEER, FormatResults, FormatSettings, Line
from squeezebert.cli import main
from squeezebert.errors import InputError

pytest.importorskip("matplotlib")


def settings(**changes: Any) -> FormatSettings:
    values = {"models": ("runs/base", "runs/small"), "threads": 2, "formats": ("native", "onnx"), "forms": True}
    return FormatSettings(**{**values, **changes})


def test_plan_has_what_ships_then_the_other_forms_and_the_peer() -> None:
    lines = formats.plan(settings(), "base")
    assert [(each.format, each.precision) for each in lines if each.shipped] == [
        ("native", "int8"), ("onnx", "fp32"), ("onnx", "int8")
    ]  # fmt: skip
    others = [(each.model, each.form, each.precision, each.beside) for each in lines if not each.shipped]
    assert others == [
        ("base", "split", "fp32", None), ("base", "bmm", "fp32", None), (PEER, None, "fp32", "base"),
        ("base", "conv", "int8", None), ("base", "bmm", "int8", None), (PEER, None, "int8", "base"),
    ]  # fmt: skip
    assert len({each.key for each in lines}) == len(lines)
    assert all(each.shipped for each in formats.plan(settings(forms=False), "base"))


def test_settings_out_of_range() -> None:
    for changes, message in (
        ({"formats": ("gguf",)}, "'gguf' is unknown; use some of native, web, onnx"),
        ({"pythons": {"gguf": "python"}}, "--python: 'gguf' is unknown"),
        ({"cases": ("1x32", "sst2")}, "formats are compared on shapes"),
        ({"rounds": 0}, "--rounds must be at least 1, not 0"),
        ({"models": ()}, "--models: name a checkpoint"),
        ({"models": ("a/run", "b/run")}, "give each another"),
        ({"models": (f"a/{PEER}",)}, "give it another name"),
    ):
        with pytest.raises(InputError, match=message):
            settings(**changes)


def test_flags_that_do_not_belong_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, message in (
        (["--models", "run"], "--models goes with --formats"),
        (["--formats", "--models", "run", "--vocab", "v"], "--vocab does not go with --formats"),
        (["--formats", "--models", "run", "--size", "small"], "--size does not go with --formats"),
        (["--formats", "--models", "run", "--python", "litert"], "give FORMAT=PYTHON"),
        (["--formats", "--models", "run", "--python", f"litert={tmp_path}/none"], "no such program"),
        (["--formats", "--models", str(tmp_path)], str(tmp_path)),
    ):
        assert main(["bench", *words]) == 2
        assert message in capsys.readouterr().err


def artifact_line(format: str, precision: str, seconds: float, **changes: Any) -> Line:
    report: dict[str, Any] = {"relative_difference": 0.01, "label_agreement": 1.0, "failed": [], "executed": True}
    report |= changes.pop("report", {})
    values: dict[str, Any] = {"model": "base", "form": "split", "shipped": True, "megabytes": 52.0}
    times = {"1x32": [seconds, 2 * seconds, seconds / 2]}
    values |= {"format": format, "precision": precision, "report": report, "seconds": times, "answer": "positive"}
    return Line(**{**values, **changes})


@pytest.fixture
def results() -> FormatResults:
    def form(name: str | None, precision: str, seconds: float) -> Line:
        model, beside = (PEER, "base") if name is None else ("base", None)
        return artifact_line("onnx", precision, seconds, form=name, shipped=False, model=model, beside=beside)

    slow = {"fp32_bytes": 208_000_000, "failed": ["latency: not faster than fp32 here"]}
    return FormatResults(
        [
            artifact_line("native", "int8", 0.003, report={"fp32_bytes": 208_000_000}, form=None),
            artifact_line("onnx", "fp32", 0.010, megabytes=208.0, form="conv"),
            artifact_line("onnx", "int8", 0.008, report=slow),
            Line(model="base", format="litert", precision="int8", shipped=True, error="litert_torch is not installed"),
            *(form(name, "fp32", each) for name, each in (("split", 0.007), (None, 0.021))),
            *(form(name, "int8", each) for name, each in (("conv", 0.040), (None, 0.016))),
        ]
    )


def test_tables(results: FormatResults) -> None:
    chosen = settings(cases=("1x32",), formats=("native", "onnx", "litert"))
    text = format_report.markdown(chosen, results, "squeezebert bench --formats")
    lines = text.splitlines()
    # Sizes beside fp32; speeds beside the fastest fp32 artifact of the format, which has another form.
    assert "| native | int8 | own | 52.0 (4.0x smaller) | 1 % | 100.0 % | 3.00 | positive | passed |" in lines
    assert "| onnx | fp32 | conv | 208.0 | 1 % | 100.0 % | 10.00 | positive | passed |" in lines
    assert "| onnx | int8 | split | 52.0 (4.0x smaller) | 1 % | 100.0 % | 8.00 (0.88x) | positive | failed |" in lines
    assert "| litert | int8 | own |  |  |  |  |  | failed |" in lines
    assert "- base-onnx-int8: latency: not faster than fp32 here" in lines
    assert "- base-litert-int8: litert_torch is not installed" in lines
    # Forms: the fastest in bold, beside BERT-base of the same runtime and precision.
    assert "| ONNX Runtime | fp32 | conv | 10.00 (2.10x) | 208.0 | ships |" in lines
    assert "| ONNX Runtime | fp32 | split | **7.00** (3.00x) | 52.0 |  |" in lines
    assert f"| ONNX Runtime | fp32 | {PEER} | 21.00 | 52.0 |  |" in lines
    assert "| ONNX Runtime | int8 | split | **8.00** (2.00x) | 52.0 | ships |" in lines
    assert "Interrupted" not in text


def test_files(results: FormatResults, tmp_path: Path) -> None:
    chosen = settings(cases=("1x32",))
    results.interrupted = True
    format_report.write(tmp_path, chosen, results, "squeezebert bench --formats")
    values = json.loads((tmp_path / "formats.json").read_text())
    assert [each["key"] for each in values["artifacts"]][:3] == ["base-native-int8", "base-onnx-fp32", "base-onnx-int8"]
    assert values["artifacts"][0]["median_seconds"] == {"1x32": 0.003}
    assert "**Interrupted**" in (tmp_path / "formats.md").read_text()
    assert (tmp_path / "formats.png").stat().st_size > 10_000


def test_each_is_measured_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name that it was planned with, whatever form its converter chose; and never another run's."""
    commands = []

    def run(python: str, words: list[str], threads: int, log: Path) -> int:
        commands.append(words)
        if words[1] == "classify":
            log.write_text("positive\t0.9\n")
            return 0
        if words[0] == "squeezebert":
            form, target = "split", Path(words[4])
        else:
            job = json.loads(words[1])
            form, target = job["form"] or "split", Path(job["target"])
        if form == "bmm":
            log.write_text("squeezebert: no such operator\n")
            return 2
        target.mkdir(exist_ok=True)
        values = {"format": "squeezebert-onnx", "form": form, "report": {"failed": []}, "files": {"model.onnx": 3}}
        (target / "config.json").write_text(json.dumps(values))
        (target / "model.onnx").write_bytes(b"abc")
        return 0

    monkeypatch.setattr(formats, "_run", run)
    chosen = settings(formats=("onnx",))
    lines = formats.plan(chosen, "base")
    model = tmp_path / "runs" / "base"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    stale = tmp_path / "base-onnx-bmm-fp32"
    stale.mkdir()
    (stale / "config.json").write_text('{"format": "squeezebert-onnx", "report": {"failed": []}}')
    formats._make(chosen, str(model), lines, tmp_path, {})
    for line in lines:
        assert line.error == ("no such operator" if line.form == "bmm" else None)
        assert (tmp_path / line.key).is_dir() == (line.form != "bmm" or line.precision == "fp32")
        assert line.megabytes == (None if line.form == "bmm" else 3e-6)
        assert line.answer == ("positive\t0.9" if line.shipped else None)
    assert [line.form for line in lines if line.shipped] == ["split", "split"]
    assert [line.form for line in lines if line.model == PEER] == [None, None]
    exports = [words for words in commands if words[1] == "export"]
    assert all("--force" in words for words in exports)
    # The peer is not written again beside the next model.
    written = len(commands)
    others = [line for line in formats.plan(chosen, "small") if line.model == PEER]
    formats._make(chosen, "runs/small", others, tmp_path, {line.key: line for line in lines})
    assert len(commands) == written
    assert [(line.beside, line.megabytes) for line in others] == [("small", 3e-6)] * 2
    # Another run takes what is there, but for what could not be written, until the checkpoint changes.
    commands.clear()
    formats._make(chosen, str(model), again := formats.plan(chosen, "base"), tmp_path, {})
    assert [line.megabytes for line in again] == [line.megabytes for line in lines]
    assert [words[1] for words in commands if words[0] == "squeezebert"] == ["classify"] * 2
    assert {json.loads(words[1])["form"] for words in commands if words[0] != "squeezebert"} == {"bmm"}
    (model / "config.json").write_text('{"hidden_size": 768}')
    commands.clear()
    formats._make(chosen, str(model), formats.plan(chosen, "base"), tmp_path, {})
    assert [words[1] for words in commands if words[0] == "squeezebert"] == ["export", "classify"] * 2


@pytest.mark.parametrize("forms", [False, True])
def test_who_takes_turns_with_whom(classifier_folder: Path, monkeypatch: pytest.MonkeyPatch, forms: bool) -> None:
    groups: list[list[str]] = []
    monkeypatch.setattr(formats, "_make", lambda *_: None)
    monkeypatch.setattr(formats, "_clock", lambda _, __, lines, ___: groups.append([line.turn for line in lines]))
    formats.bench_formats(settings(models=(str(classifier_folder),), forms=forms))
    name = classifier_folder.name
    shipped = [f"{name}-native-int8", f"{name}-onnx-fp32", f"{name}-onnx-int8"]
    others = [
        f"{name}-onnx-split-fp32", f"{name}-onnx-bmm-fp32", f"{PEER}-onnx-fp32-beside-{name}",
        f"{name}-onnx-conv-int8", f"{name}-onnx-bmm-int8", f"{PEER}-onnx-int8-beside-{name}",
    ]  # fmt: skip
    assert groups == ([shipped[:1], [*shipped[1:], *others]] if forms else [shipped])


def test_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my run").mkdir()
    monkeypatch.chdir(tmp_path / "my run")
    assert [formats.name_of(each) for each in (".", "../my run/", "runs/base")] == ["my run", "my run", "base"]
    assert settings(formats=("onnx", "native", "onnx")).formats == ("onnx", "native")


def test_interrupted_run_keeps_what_it_has(classifier_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(_: Any, __: str, lines: list[Line], ___: Path) -> None:
        lines[0].seconds["1x32"] = [0.5]
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "_make", lambda *_: None)
    monkeypatch.setattr(formats, "_clock", clock)
    found = formats.bench_formats(settings(models=(str(classifier_folder),)))
    assert found.interrupted
    assert found.lines[0].seconds == {"1x32": [0.5]}


@pytest.mark.slow
def test_real_artifacts(classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    words = ["bench", "--formats", "native", "web", "onnx", "--models", str(classifier_folder), "--threads", "1"]
    words += ["--rounds", "2", "--cases", "1x8", "--output", str(tmp_path / "out"), "--keep", str(tmp_path / "kept")]
    assert main(words) == 0
    assert capsys.readouterr().out == (tmp_path / "out" / "formats.md").read_text()
    values = json.loads((tmp_path / "out" / "formats.json").read_text())
    found = {(each["format"], each["precision"]): each for each in values["artifacts"]}
    assert set(found) == {("native", "int8"), ("web", "int8"), ("onnx", "fp32"), ("onnx", "int8")}
    for (format, _), each in found.items():
        assert each["error"] is None
        assert each["report"]["label_agreement"] > 0.9
        assert each["megabytes"] > 0.01
        assert [len(times) for times in each["seconds"].values()] == ([] if format == "web" else [2])
        assert format == "web" or each["answer"].split()[0] in ("negative", "positive")
    assert (tmp_path / "kept" / f"{classifier_folder.name}-onnx-int8" / "model.onnx").is_file()
