from __future__ import annotations

import json
from pathlib import Path

import pytest

from squeezebert.bench import report
from squeezebert.bench.contenders import Contender
from squeezebert.bench.run import Results, Settings

pytest.importorskip("matplotlib")

NATIVE = Contender(stack="native", model="squeezebert", precision="int8", instruction_set="avx2")
TORCH = Contender(stack="torch", model="squeezebert", precision="fp32")
EAGER = Contender(stack="transformers", model="bert", precision="fp32")
BERT = Contender(stack="openvino", model="bert", precision="int8")
OTHER = Contender(stack="openvino", model="squeezebert", precision="int8", form="split")
ABSENT = Contender(stack="openvino", model="bert", precision="bf16")


@pytest.fixture
def results() -> Results:
    return Results(
        contenders=[NATIVE, TORCH, EAGER, BERT, OTHER, ABSENT],
        seconds={
            NATIVE.key: {"1x32": [0.004, 0.002, 0.003], "sst2": [2.0, 2.5]},
            TORCH.key: {"1x32": [0.012, 0.012, 0.012], "sst2": [4.0, 4.0]},
            EAGER.key: {"1x32": [0.06, 0.06, 0.06], "sst2": [18.0, 18.0]},
            BERT.key: {"1x32": [0.009, 0.009, 0.009]},
            OTHER.key: {"1x32": [0.006, 0.006, 0.006], "sst2": [4.5, 4.5]},
        },
        texts={"sst2": 900},
        memory_mb={NATIVE.key: 101.4},
        file_mb={NATIVE.key: 52.0},
        classify_seconds=[0.3, 0.2, 0.4],
        skipped={ABSENT.title: "not on this CPU"},
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cases=("1x32",), threads=2, cache=tmp_path)


def test_table(settings: Settings, results: Results) -> None:
    text = report.markdown(settings, results, "squeezebert bench")
    lines = text.splitlines()
    assert "|  | 1x32, ms | sst2, texts/s | memory, MB | files, MB |" in lines
    assert "| squeezebert, native engine, avx2 | **3** | **400** | 101 | 52 |" in lines
    assert "| squeezebert, torch engine, fp32 | 12 | 225 |  |  |" in lines
    assert "| OpenVINO int8, BERT-base | 9 |  |  |  |" in lines
    assert "| transformers eager BERT-base | 20.00x | 8.00x |" in lines
    # Nobody but transformers ran BERT-base on the texts.
    assert "| fastest BERT-base | 3.00x | 8.00x |" in lines
    assert "| fastest other SqueezeBERT | 2.00x | 2.00x |" in lines
    assert "- OpenVINO bf16, BERT-base: not on this CPU" in lines
    assert "the whole process: 0.300 s (median of 3)" in text
    assert "Command: `squeezebert bench`" in lines
    assert "Interrupted" not in text


def test_json(settings: Settings, results: Results) -> None:
    values = json.loads(json.dumps(report.to_json(settings, results, "squeezebert bench")))
    assert [each["key"] for each in values["contenders"]] == [each.key for each in results.contenders[:-1]]
    first = values["contenders"][0]
    assert first["median_seconds"] == {"1x32": 0.003, "sst2": 2.25}
    assert first["seconds"]["1x32"] == [0.004, 0.002, 0.003]
    assert (first["resident_mb"], first["file_mb"]) == (101.4, 52.0)
    assert values["ratios"]["fastest BERT-base"]["1x32"] == {
        "ours": NATIVE.key, "other": BERT.key, "ratio": pytest.approx(3.0)
    }  # fmt: skip
    assert values["threads"] == 2
    assert "torch" in values["versions"]
    assert values["cpu"]


def test_files(tmp_path: Path, settings: Settings, results: Results) -> None:
    results.interrupted = True
    report.write(tmp_path / "out", settings, results, "squeezebert bench")
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "**Interrupted**" in (tmp_path / "out" / "bench.md").read_text()
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["interrupted"] is True
