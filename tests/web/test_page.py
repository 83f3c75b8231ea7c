"""The page in a real browser, beside the native engine: labels and scores of texts, of lists and of files, of each kind
of model, by keyboard, on a phone's screen, without network, without threads, without SIMD."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezebert.cli.demo import make_server
from squeezebert.export import native as native_export
from squeezebert.export import web
from squeezebert.runtime import Prediction
from squeezebert.runtime.engines import native
from squeezebert.runtime.predictor import Predictor

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TEXTS = ["a gripping, beautifully shot film", "the hinge broke within a week"]
_VOCABULARY = (GOLDEN / "vocab.txt").read_text(encoding="utf-8").splitlines()
WORDS = [word for word in _VOCABULARY if word.isascii() and word.isalpha()]
_draw = random.Random(0)
ROWS = [f'{i} minutes, "{" ".join(_draw.choices(WORDS, k=1 + i % 50))}"' for i in range(200)]
LONG = [" ".join(_draw.choices(WORDS, k=60)) for _ in range(300)] * 100
PAIRS = [(" ".join(_draw.choices(WORDS, k=9)), " ".join(_draw.choices(WORDS, k=5))) for _ in range(20)]
MODELS = {  # labels, problem type, whether it takes pairs
    "single": (("negative", "positive"), "single_label_classification", False),
    "pair": (("no", "perhaps", "yes"), "single_label_classification", True),
    "multi": (("long", "old", "sad"), "multi_label_classification", False),
    "regression": (("value",), "regression", False),
}
TOLERANCE = 1e-3  # of a score; of those that the page shows in per cent with one decimal, 5e-4 is rounding

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None or shutil.which("node") is None:
        pytest.skip("needs chromium and node")
    if not (ROOT / "web" / "node_modules" / "playwright-core").is_dir():
        pytest.skip("needs playwright-core: npm ci in web/")
    return found


def save_model(folder: Path, labels: tuple[str, ...], problem_type: str, pair: bool) -> None:
    """Export a small classifier of random weights, whose outputs are about as often positive as negative."""
    import torch

    from squeezebert import checkpoint

    torch.manual_seed(0)
    loaded = checkpoint.load(
        "tiny",
        "sequence_classification",
        vocab=GOLDEN / "vocab.txt",
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        problem_type=problem_type,
        initializer_range=0.2,
    )
    save = partial(checkpoint.save, tokenizer=loaded.tokenizer, extra={"max_length": 64, "pair": pair})
    save(loaded.model, folder / "checkpoint")
    rows = PAIRS if pair else [(text, None) for text in ROWS]
    logits = np.stack(list(Predictor.load(folder / "checkpoint", engine="torch").logits(rows)))
    with torch.no_grad():
        loaded.model.classifier.bias -= torch.from_numpy(np.median(logits, axis=0))
    save(loaded.model, folder / "checkpoint")
    native_export.export(folder / "checkpoint", folder / "model")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of each of MODELS, exported."""
    folder = tmp_path_factory.mktemp("models")
    for name, description in MODELS.items():
        save_model(folder / name, *description)
    return {name: folder / name / "model" for name in MODELS}


@pytest.fixture(scope="module")
def predictors(models: dict[str, Path], native_library: Path) -> Iterator[dict[str, Predictor]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.LIBRARY_VARIABLE, str(native_library))
        yield {name: Predictor.load(folder, engine="native") for name, folder in models.items()}


class PlainHandler(SimpleHTTPRequestHandler):
    """A static host that sends no headers of its own."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def shown(chromium: str, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page showed, and under the name of each file that it let download, its rows."""
    folder = tmp_path_factory.mktemp("browser")
    site = folder / "site"
    web.export(models["single"], site)
    threadless = shutil.copytree(site, folder / "threadless", ignore=shutil.ignore_patterns("thread.js"))
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(ROWS)])
    for name in web.MODEL_FILES:
        (folder / name).write_text('{"model_type": "bert"}')
    plan = {
        "texts": TEXTS,
        "csv": str(folder / "texts.csv"),
        "lines": LONG[:300],
        "times": 100,
        "pairs": PAIRS,
        "notModel": [str(folder / name) for name in web.MODEL_FILES],
        "models": {name: [str(model / file) for file in web.MODEL_FILES] for name, model in models.items()},
    }
    with ExitStack() as stack:
        handler = partial(PlainHandler, directory=str(site))
        for name, server in (
            ("address", make_server(site, site / web.MODEL, 0)),
            ("threadlessAddress", make_server(threadless, site / web.MODEL, 0)),
            ("plainAddress", ThreadingHTTPServer(("127.0.0.1", 0), handler)),
        ):
            stack.enter_context(server)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            plan[name] = f"http://localhost:{server.server_port}/"
        (folder / "plan.json").write_text(json.dumps(plan))
        command = ["node", Path(__file__).with_name("browser.mjs"), chromium, folder / "plan.json", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for name in ("rows.csv", "stopped.csv", "replaced.csv", "pairs.csv", "columns.csv", "multi.csv", "regression.csv"):
        with (folder / name).open(newline="", encoding="utf-8") as file:
            result[name] = list(csv.DictReader(file))
    return result


def percent(text: str) -> float:
    return float(text.removesuffix(" %")) / 100


def joined(label: str | float | tuple[str, ...], separator: str) -> str:
    return separator.join(label) if isinstance(label, tuple) else str(label)


def check_text(answer: dict[str, Any], predictor: Predictor, text: str, pair: str | None = None) -> None:
    """Compare what the panel of one text showed."""
    [want] = predictor.predict([text], None if pair is None else [pair])
    if predictor.engine.kind == "regression":
        assert float(answer["label"]) == pytest.approx(want.label, abs=TOLERANCE)
        assert answer["scores"] == []
    else:
        assert answer["label"] == (joined(want.label, ", ") or "none")
        assert [percent(score) for score in answer["scores"]] == pytest.approx(
            list(want.scores.values()), abs=TOLERANCE
        )
    ids = predictor.tokenizer.encode(text, pair).input_ids
    assert answer["tokens"] == [predictor.tokenizer.id_to_token(index) for index in ids]
    assert f"{len(ids)} tokens" in answer["facts"]


def check_rows(rows: list[dict[str, str]], wanted: list[Prediction]) -> None:
    """Compare a file that the page let download. A score on the border between two labels may be on either side."""
    for row, want in zip(rows, wanted, strict=True):
        assert float(row["score"]) == pytest.approx(want.score, abs=TOLERANCE)
        if isinstance(want.label, float):
            assert float(row["label"]) == pytest.approx(want.label, abs=TOLERANCE)
            assert "score_value" not in row
            continue
        scores = sorted(want.scores.values())
        sure = scores[-1] - scores[-2] > TOLERANCE
        if isinstance(want.label, tuple):
            sure = all(abs(score - 0.5) > TOLERANCE for score in scores)
        if sure:
            assert row["label"] == joined(want.label, ";")
        for label, score in want.scores.items():
            assert float(row[f"score_{label}"]) == pytest.approx(score, abs=TOLERANCE)


def test_one_text(shown: dict[str, Any], predictors: dict[str, Predictor]) -> None:
    for text, answer in zip(TEXTS, shown["texts"], strict=True):
        check_text(answer, predictors["single"], text)


def test_importance(shown: dict[str, Any], predictors: dict[str, Predictor]) -> None:
    predictor = predictors["single"]
    tokenizer = predictor.tokenizer
    for text, answer in zip(TEXTS, shown["texts"], strict=True):
        [whole] = predictor.predict([text])
        assert answer["shares"][0] is None
        assert answer["shares"][-1] is None
        ids = tokenizer.encode(text).input_ids
        rows = [ids, *([*ids[:i], *ids[i + 1 :]] for i in range(1, len(ids) - 1))]
        engine = predictor.engine
        assert isinstance(engine, native.NativeEngine)
        lengths = np.array([len(row) for row in rows])
        logits = engine.run_ragged(np.concatenate(rows), None, lengths, logits=True)["logits"]
        best = list(whole.scores).index(str(whole.label))
        odds = logits[:, best] - logits[:, 1 - best]
        want = odds[0] - odds[1:]
        got = [float(share.replace("−", "-")) for share in answer["shares"][1:-1]]
        # p within TOLERANCE: log(p / (1 - p)) within TOLERANCE / (p (1 - p)), twice.
        p = whole.score
        assert 0.05 < p < 0.95
        assert got == pytest.approx(want.tolist(), abs=2 * TOLERANCE / (p * (1 - p)))


def test_two_hundred_rows(shown: dict[str, Any], predictors: dict[str, Predictor]) -> None:
    assert shown["column"] == "text"
    assert "200 texts" in shown["batchStatus"]
    assert [row["text"] for row in shown["rows.csv"]] == ROWS
    wanted = predictors["single"].predict(ROWS)
    assert min(Counter(want.label for want in wanted).values()) >= 50
    check_rows(shown["rows.csv"], wanted)


def test_long_file_stops_and_lets_the_other_panel_answer(
    shown: dict[str, Any], predictors: dict[str, Predictor]
) -> None:
    """A dropped file runs on while a text is asked and weighed, until it is stopped."""
    assert shown["meanwhile"] == {**shown["texts"][0], "facts": shown["meanwhile"]["facts"]}
    before, answered, later = shown["progress"]
    found = re.fullmatch(r"Stopped after (\d+) of (\d+) texts", shown["stopStatus"])
    assert found is not None, shown["stopStatus"]
    stopped, whole = int(found[1]), int(found[2])
    assert 0 < before < answered < later <= stopped < whole == len(LONG)
    assert [row["text"] for row in shown["stopped.csv"]] == LONG[:stopped]
    check_rows(shown["stopped.csv"], predictors["single"].predict(LONG[:stopped]))


def test_another_model_stops_the_batch_of_the_former(shown: dict[str, Any], predictors: dict[str, Predictor]) -> None:
    rows = shown["replaced.csv"]
    assert shown["replacedStatus"] == f"Stopped after {len(rows)} of {len(LONG)} texts"
    check_rows(rows, predictors["single"].predict(LONG[: len(rows)]))


def test_pairs(shown: dict[str, Any], predictors: dict[str, Predictor]) -> None:
    check_text(shown["pair"], predictors["pair"], *PAIRS[0])
    assert shown["columns"] == ["sentence1", "sentence2"]
    assert [(row["text"], row["pair"]) for row in shown["pairs.csv"]] == PAIRS
    wanted = predictors["pair"].predict([text for text, _ in PAIRS], [pair for _, pair in PAIRS])
    assert len({want.label for want in wanted}) > 1
    check_rows(shown["pairs.csv"], wanted)
    assert shown["pairColumn"] == [False, True]
    assert "both texts come from text" in shown["sameColumn"]
    assert [(row["text"], row["pair"]) for row in shown["columns.csv"]] == PAIRS
    check_rows(shown["columns.csv"], wanted)
    assert "line 1: this model takes pairs" in shown["noTab"]


@pytest.mark.parametrize("name", ["multi", "regression"])
def test_other_kinds(shown: dict[str, Any], predictors: dict[str, Predictor], name: str) -> None:
    check_text(shown[name], predictors[name], TEXTS[0])
    assert [row["text"] for row in shown[f"{name}.csv"]] == TEXTS
    check_rows(shown[f"{name}.csv"], predictors[name].predict(TEXTS))


def test_threads_and_silence(shown: dict[str, Any]) -> None:
    assert shown["isolated"] is True
    assert shown["console"] == []
    assert shown["requestsAfterLoad"] == []


def test_without_isolation(shown: dict[str, Any]) -> None:
    assert shown["plain"]["isolated"] is False
    assert ", 1 thread." in shown["plain"]["about"]
    same = ("label", "scores", "tokens", "shares")
    assert [shown["plain"]["text"][key] for key in same] == [shown["texts"][0][key] for key in same]


def test_keyboard_and_screen_reader(shown: dict[str, Any]) -> None:
    assert shown["focused"] == "tab-many"
    assert shown["spoken"].startswith("Label ")


def test_phone(shown: dict[str, Any]) -> None:
    assert shown["overflow"] <= 0
    assert shown["smallTargets"] == []
    assert shown["phone"]["label"] == shown["texts"][0]["label"]


def test_clear_words(shown: dict[str, Any], predictors: dict[str, Predictor]) -> None:
    assert "not an exported model" in shown["notModel"]
    assert "tokenizer.json is missing" in shown["missing"]
    assert shown["afterwards"]["label"] == shown["texts"][0]["label"]
    assert "lacks WebAssembly SIMD" in shown["withoutSimd"]
    assert shown["fetchedInVain"] == []
    assert ".wasm cannot be fetched" in shown["withoutEngine"]
    check_text(shown["retried"], predictors["regression"], TEXTS[0])
    assert ", 1 thread." in shown["retriedAbout"]
