from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from squeezebert import Classifier, Prediction
from squeezebert.errors import InputError
from squeezebert.export.native import export as export_native

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "classify.py"
GOOD = ["a good film", "great and moving", "very fine", "how good it is", "a great plot", "so moving"]
BAD = ["dull and long", "no plot", "too long", "not good but dull", "very dull", "why so long"]
SETTINGS: dict[str, Any] = {"epochs": 12, "batch_size": 4, "learning_rate": 1e-3, "dropout": 0.0, "max_length": 16}


def test_one_text_or_many(classifier_folder: Path) -> None:
    classifier = Classifier.load(classifier_folder)
    one = classifier.predict("good film")
    assert isinstance(one, Prediction)
    assert one == classifier.predict(["good film"])[0]
    assert [p.label for p in classifier.predict(["good film", "dull plot"])] == [
        classifier.predict(text).label for text in ("good film", "dull plot")
    ]
    assert classifier.predict([]) == []


def test_pairs(classifier_folder: Path) -> None:
    classifier = Classifier.load(classifier_folder)
    one = classifier.predict("good film", "dull plot")
    assert one == classifier.predict(["good film"], ["dull plot"])[0]
    assert one.score != pytest.approx(classifier.predict("good film").score, abs=1e-4)


def test_probabilities_equal_transformers(classifier_folder: Path) -> None:
    pipeline = transformers.pipeline("text-classification", model=str(classifier_folder), device="cpu", top_k=None)
    classifier = Classifier.load(classifier_folder, engine="torch")
    probabilities = classifier.predict_proba([*GOOD, *BAD])
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (12, 2))
    expected = [{each["label"]: each["score"] for each in row} for row in pipeline([*GOOD, *BAD])]
    np.testing.assert_allclose(
        probabilities, [[row[label] for label in classifier.labels] for row in expected], atol=1e-5
    )


def test_probabilities_agree_with_predictions(save_classifier: Callable[..., Path]) -> None:
    for problem_type in ("single_label_classification", "multi_label_classification"):
        classifier = Classifier.load(save_classifier(("a", "b", "c"), problem_type=problem_type))
        assert classifier.labels == ("a", "b", "c")
        rows = [list(prediction.scores.values()) for prediction in classifier.predict(GOOD)]
        np.testing.assert_allclose(classifier.predict_proba(GOOD), rows, rtol=1e-6)
    assert classifier.predict_proba([]).shape == (0, 3)
    assert classifier.predict_proba("good").shape == (1, 3)


def test_regression_has_values_and_no_probabilities(save_classifier: Callable[..., Path]) -> None:
    classifier = Classifier.load(save_classifier(("score",), problem_type="regression"))
    assert isinstance(classifier.predict("good film").label, float)
    assert classifier.labels == ()
    with pytest.raises(InputError, match="a regression has values and no probabilities"):
        classifier.predict_proba("good film")


@pytest.mark.parametrize(("engine", "exported"), [("torch", False), ("native", False), ("native", True)])
def test_saved_model_predicts_the_same(
    save_classifier: Callable[..., Path], tmp_path: Path, engine: str, exported: bool
) -> None:
    folder = save_classifier()
    note = {"channels": [1, 0]}  # how a cut model's channels stand
    (folder / "order.json").write_text(json.dumps(note))
    if exported:
        export_native(folder, tmp_path / "exported")
        folder = tmp_path / "exported"
    classifier = Classifier.load(folder, engine=engine)
    classifier.save(tmp_path / "copy")
    assert Classifier.load(tmp_path / "copy", engine=engine).predict(GOOD) == classifier.predict(GOOD)
    assert json.loads((tmp_path / "copy" / "order.json").read_text()) == note


def test_before_fit_there_is_nothing_to_predict_or_save(tmp_path: Path) -> None:
    for use in (
        lambda c: c.predict("x"),
        lambda c: c.predict_proba("x"),
        lambda c: c.save(tmp_path),
        lambda c: c.labels,
    ):
        with pytest.raises(InputError, match="call fit"):
            use(Classifier())


def test_one_text_with_a_list_of_pairs_is_refused(classifier_folder: Path) -> None:
    with pytest.raises(InputError, match="both be one text"):
        Classifier.load(classifier_folder).predict("good", ["dull"])  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    texts = [text for pair in zip(GOOD, BAD, strict=True) for text in pair]
    return Classifier("tiny").fit(texts, ["good", "bad"] * 6, dev=(texts, ["good", "bad"] * 6), **SETTINGS)


def test_fit_learns_its_examples(fitted: Classifier, tmp_path: Path) -> None:
    assert fitted.labels == ("bad", "good")
    assert [prediction.label for prediction in fitted.predict(GOOD + BAD)] == ["good"] * 6 + ["bad"] * 6
    fitted.save(tmp_path / "model")
    loaded = Classifier.load(tmp_path / "model")
    assert loaded.predict(GOOD) == fitted.predict(GOOD)


def test_texts_are_cut_as_in_finetuning(fitted: Classifier) -> None:
    text = "great " * 14
    assert fitted.predict(text) == fitted.predict(text + "dull " * 50)  # 16 tokens, two of them special
    assert fitted.predict("great " * 13) != fitted.predict("great " * 13 + "dull " * 50)


def test_example_runs(fitted: Classifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "model"), "a good film", "dull and long"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["good", "bad"]
    assert lines[0] == f"good {fitted.predict('a good film').score:.3f} a good film"


def test_fit_keeps_the_run_where_asked(tmp_path: Path) -> None:
    texts = GOOD + BAD
    values = np.array([1.0] * 6 + [-1.0] * 6, dtype=np.float32)
    settings = SETTINGS | {"epochs": 1}
    classifier = Classifier("tiny").fit(texts, values, output=tmp_path / "run", regression=True, **settings)
    assert classifier.predict(texts) == Classifier.load(tmp_path / "run").predict(texts)
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_finished_run_is_that_of_its_own_call_only(tmp_path: Path) -> None:
    settings = SETTINGS | {"epochs": 1, "output": tmp_path / "run"}
    first = Classifier("tiny").fit(GOOD + BAD, ["good"] * 6 + ["bad"] * 6, **settings)
    again = Classifier("tiny").fit(GOOD + BAD, ["good"] * 6 + ["bad"] * 6, **settings, resume=True)
    assert again.predict(GOOD) == first.predict(GOOD)
    with pytest.raises(InputError, match="epochs was 1"):
        Classifier("tiny").fit(GOOD + BAD, ["good"] * 6 + ["bad"] * 6, **settings | {"epochs": 2}, resume=True)
    with pytest.raises(InputError, match=r"labels was \['bad', 'good'\]"):
        Classifier("tiny").fit(GOOD + BAD, ["great"] * 6 + ["bad"] * 6, **settings, resume=True)


def test_fit_on_pairs_with_several_labels() -> None:
    labels = [["short", "good"], ["short"], []] * 4
    settings = SETTINGS | {"epochs": 1}
    classifier = Classifier("tiny").fit(GOOD + BAD, labels, pairs=BAD + GOOD, multi_label=True, **settings)
    assert classifier.labels == ("good", "short")
    assert isinstance(classifier.predict("good", "bad").label, tuple)


def test_labels_that_are_numbers_come_back_as_names() -> None:
    classifier = Classifier("tiny").fit(GOOD + BAD, np.array([0] * 6 + [1] * 6), **SETTINGS | {"epochs": 1})
    assert classifier.labels == ("0", "1")
    assert classifier.predict("a good film").label in ("0", "1")


def test_dev_texts_that_are_learned_from_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["a", "b"] * 3
    settings = SETTINGS | {"epochs": 1, "output": tmp_path / "run"}
    Classifier("tiny").fit(GOOD, labels, dev=([*GOOD[:2], "new"], ["a", "b", "a"]), **settings)
    assert "2 rows also occur in train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "labels", "settings", "message"),
    [
        (GOOD, ["a"] * 5, {}, "6 texts, but 5 labels"),
        ([], [], {}, "no texts to learn from"),
        (GOOD, ["a"] * 6, {}, "every row has the label 'a'"),
        (["x", None], ["a", "b"], {}, r"texts\[1\] is not a string"),
        (["x", "y"], ["a", None], {}, r"labels\[1\]: the label is missing"),
        (["x", "y"], [1.0, float("nan")], {"regression": True}, r"labels\[1\]: .*not a finite number"),
        (GOOD, ["a", "b"] * 3, {"epoch": 3}, "unexpected keyword argument 'epoch'"),
        (GOOD, ["a", "b"] * 3, {"epochs": 0}, "epochs must be at least 1"),
        (GOOD, ["a", "b"] * 3, {"dev": (["x"], ["c"])}, r"dev labels\[0\]: label 'c' is not one of"),
        (GOOD, ["a", "b"] * 3, {"dev": (["x"], ["a"], ["y"])}, "both have second texts, or neither"),
        (GOOD, ["a", "b"] * 3, {"pairs": ["x"]}, "6 texts, but 1 second texts"),
        ("good", ["a", "b", "a", "b"], {}, "texts must be a list, not the one string 'good'"),
        (["x", "y"], "ab", {}, "labels must be a list"),
        (["x", "y"], ["a", "b"], {"pairs": "xy"}, "second texts must be a list"),
        (GOOD, ["a", "b"] * 3, {"dev": ("xy", ["a", "b"])}, "dev texts must be a list"),
        (GOOD, ["a", "b"] * 3, {"dev": (["x"],)}, r"dev must be \(texts, labels\)"),
        (GOOD, ["a", "b"] * 3, {"train": "a.csv"}, "settings: train is for data in files"),
        (GOOD, ["a", "b"] * 3, {"task": "sst2"}, "settings: task is for data in files"),
        (GOOD, ["a", "b"] * 3, {"text_column": "text"}, "settings: text_column is for data in files"),
        (GOOD, ["a", "b"] * 3, {"model": "tiny"}, "multiple values for keyword argument 'model'"),
    ],
)
def test_wrong_input_to_fit_says_what_and_where(
    texts: list[str], labels: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Classifier("tiny").fit(texts, labels, **settings)
