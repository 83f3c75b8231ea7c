from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from squeezebert import checkpoint
from squeezebert.errors import InputError
from squeezebert.runtime.engines.torch import TorchEngine
from squeezebert.runtime.predictor import Predictor

# One rounding error of each of the model's products, sums of at most 256 terms, through two layers whose norms keep
# their inputs at unit size: 256 * eps * 2 layers * 4 products each, of logits of order one.
TOLERANCE = 256 * np.finfo(np.float32).eps * 8


def texts(n: int, longest: int = 60) -> list[str]:
    generator = random.Random(3)
    words = ["a", "and", "dull", "film", "good", "great", "is", "it", "long", "moving", "not", "plot", "the", "very"]
    return [" ".join(generator.choices(words, k=generator.randint(0, longest))) for _ in range(n)]


def test_equal_to_transformers(classifier_folder: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(classifier_folder)
    predictor = Predictor.load(classifier_folder, engine="torch")
    rows = texts(20)
    inputs = tokenizer(rows, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits.numpy()
    logits = np.stack(list(predictor.logits((row, None) for row in rows)))
    assert np.ptp(expected[:, 0]) > 0.1  # the texts are told apart, so the comparison says something
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_a_text_alone_equals_itself_in_a_batch(classifier_folder: Path, batch_size: int) -> None:
    rows = texts(64)
    predictor = Predictor.load(classifier_folder, engine="torch", batch_size=batch_size)
    together = np.stack(list(predictor.logits((row, None) for row in rows)))
    alone = np.stack([next(predictor.logits([(row, None)])) for row in rows])
    np.testing.assert_allclose(together, alone, atol=TOLERANCE)


def test_order_is_kept_for_shuffled_lengths(classifier_folder: Path) -> None:
    rows = texts(50)
    predictor = Predictor.load(classifier_folder, engine="torch", batch_size=4)
    forward = predictor.predict(rows)
    backward = predictor.predict(rows[::-1])[::-1]
    assert [p.label for p in forward] == [p.label for p in backward]
    np.testing.assert_allclose([p.score for p in forward], [p.score for p in backward], atol=TOLERANCE)


def test_second_text_counts(classifier_folder: Path) -> None:
    predictor = Predictor.load(classifier_folder, engine="torch")
    single, pair, swapped = predictor.logits(
        [("good film", None), ("good film", "dull plot"), ("dull plot", "good film")]
    )
    assert abs(single - pair).max() > 1e-3
    assert abs(pair - swapped).max() > 1e-3


@pytest.mark.parametrize(
    ("problem_type", "labels", "kind"),
    [
        ("single_label_classification", ("a", "b", "c"), "single_label"),
        ("multi_label_classification", ("a", "b", "c"), "multi_label"),
        ("regression", ("score",), "regression"),
        (None, ("a", "b"), "single_label"),
        (None, ("score",), "regression"),
    ],
)
def test_kind_follows_the_config(
    save_classifier: Callable[..., Path], problem_type: str | None, labels: tuple[str, ...], kind: str
) -> None:
    engine = TorchEngine.load(save_classifier(labels, problem_type=problem_type))
    assert (engine.kind, engine.labels, engine.max_length) == (kind, labels, 512)


@pytest.mark.parametrize(
    ("extra", "pair"), [({"pair": True}, True), ({"pair": False}, False), ({}, None), ({"pair": "yes"}, None)]
)
def test_pairs_are_known_where_the_checkpoint_says_so(
    classifier_folder: Path, tmp_path: Path, extra: dict[str, object], pair: bool | None
) -> None:
    loaded = checkpoint.load(classifier_folder)
    checkpoint.save(loaded.model, tmp_path / "model", tokenizer=loaded.tokenizer, extra=extra)
    assert TorchEngine.load(tmp_path / "model").pair is pair


def test_loading_does_not_change_the_threads(classifier_folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        TorchEngine.load(classifier_folder)
        assert torch.get_num_threads() == 1
        TorchEngine.load(classifier_folder, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "toaster"}, "device 'toaster' cannot be used here"),
        ({"device": "meta"}, "device 'meta' cannot be used here"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_device_or_threads_that_are_not_there(
    classifier_folder: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        TorchEngine.load(classifier_folder, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_size_name_is_refused() -> None:
    with pytest.raises(InputError, match="tiny: a size name stands for random weights"):
        TorchEngine.load("tiny")


def test_checkpoint_without_vocabulary_is_refused(save_classifier: Callable[..., Path]) -> None:
    folder = save_classifier()
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"no tokenizer\.json or vocab\.txt"):
        Predictor.load(folder, engine="torch")
