"""The page in a real browser, beside the native engine: labels and scores of texts and of a file, by keyboard, on a
phone's screen, without network, without SIMD."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squeezebert.cli.demo import make_server
from squeezebert.export import web
from squeezebert.runtime.engines import native
from squeezebert.runtime.predictor import Predictor

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TEXTS = ["a gripping, beautifully shot film", "the hinge broke within a week"]
ROWS = [f'a film of {i} minutes, "some" gripping' + " and long" * (i % 40) for i in range(200)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None or shutil.which("node") is None:
        pytest.skip("needs chromium and node")
    if not (ROOT / "web" / "node_modules" / "playwright-core").is_dir():
        pytest.skip("needs playwright-core: npm ci in web/")
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of random weights, exported with its page."""
    import torch

    from squeezebert import checkpoint

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    loaded = checkpoint.load(
        "tiny",
        vocab=GOLDEN / "vocab.txt",
        num_labels=2,
        id2label={0: "negative", 1: "positive"},
        problem_type="single_label_classification",
        initializer_range=0.2,
    )
    extra = {"max_length": 64, "pair": False}
    checkpoint.save(loaded.model, folder / "checkpoint", tokenizer=loaded.tokenizer, extra=extra)
    web.export(folder / "checkpoint", folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def predictor(model: Path, native_library: Path) -> Iterator[Predictor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.LIBRARY_VARIABLE, str(native_library))
        yield Predictor.load(model / web.MODEL, engine="native")


@pytest.fixture(scope="module")
def shown(chromium: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page showed, and the rows that it let download."""
    folder = tmp_path_factory.mktemp("browser")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(ROWS)])
    for name in web.MODEL_FILES:
        (folder / name).write_text('{"model_type": "bert"}')
    bad = [str(folder / name) for name in web.MODEL_FILES]
    plan = {"texts": TEXTS, "csv": str(folder / "rows.csv"), "notModel": bad}
    (folder / "plan.json").write_text(json.dumps(plan))
    with make_server(model, model / web.MODEL, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://localhost:{server.server_port}/"
        script = Path(__file__).with_name("browser.mjs")
        command = ["node", script, chromium, address, folder / "plan.json", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        server.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        result["rows"] = list(csv.DictReader(file))
    return result


def percent(text: str) -> float:
    return float(text.removesuffix(" %")) / 100


def test_one_text(shown: dict[str, Any], predictor: Predictor) -> None:
    for text, answer in zip(TEXTS, shown["texts"], strict=True):
        [want] = predictor.predict([text])
        assert answer["label"] == want.label
        # The page shows a tenth of a per cent, half of which is 5e-4.
        assert [percent(score) for score in answer["scores"]] == pytest.approx(list(want.scores.values()), abs=1e-3)
        ids = predictor.tokenizer.encode(text).input_ids
        assert answer["tokens"] == [predictor.tokenizer.id_to_token(index) for index in ids]
        assert f"{len(ids)} tokens" in answer["facts"]


def test_importance(shown: dict[str, Any], predictor: Predictor) -> None:
    tokenizer = predictor.tokenizer
    for text, answer in zip(TEXTS, shown["texts"], strict=True):
        [whole] = predictor.predict([text])
        assert answer["shares"][0] is None
        assert answer["shares"][-1] is None
        import numpy as np

        ids = tokenizer.encode(text).input_ids
        left = [[*ids[:i], *ids[i + 1 :]] for i in range(1, len(ids) - 1)]
        engine = predictor.engine
        logits = engine.run_ragged(np.concatenate(left), None, np.array([len(row) for row in left]), logits=True)
        best = list(whole.scores).index(str(whole.label))
        powers = np.exp(logits["logits"] - logits["logits"].max(axis=1, keepdims=True))
        want = whole.score - powers[:, best] / powers.sum(axis=1)
        got = [float(share.replace("−", "-")) for share in answer["shares"][1:-1]]
        assert got == pytest.approx(want.tolist(), abs=1e-3)


def test_two_hundred_rows(shown: dict[str, Any], predictor: Predictor) -> None:
    assert shown["column"] == "text"
    assert "200 texts" in shown["batchStatus"]
    assert [row["text"] for row in shown["rows"]] == ROWS
    for row, want in zip(shown["rows"], predictor.predict(ROWS), strict=True):
        assert row["label"] == want.label
        assert float(row["score"]) == pytest.approx(want.score, abs=1e-3)
        assert float(row["score_negative"]) == pytest.approx(want.scores["negative"], abs=1e-3)


def test_threads_and_silence(shown: dict[str, Any]) -> None:
    assert shown["isolated"] is True
    assert shown["console"] == []
    assert shown["requestsAfterLoad"] == []


def test_keyboard_and_screen_reader(shown: dict[str, Any]) -> None:
    assert shown["focused"] == "tab-many"
    assert shown["spoken"].startswith("Label ")


def test_phone(shown: dict[str, Any]) -> None:
    assert shown["overflow"] <= 0
    assert shown["smallTargets"] == []
    assert shown["phone"]["label"] == shown["texts"][0]["label"]


def test_clear_words(shown: dict[str, Any]) -> None:
    assert "not an exported model" in shown["notModel"]
    assert "tokenizer.json is missing" in shown["missing"]
    assert shown["afterwards"]["label"] == shown["texts"][0]["label"]
    assert "lacks WebAssembly SIMD" in shown["withoutSimd"]
