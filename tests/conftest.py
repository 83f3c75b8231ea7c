"""Shared fixtures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Put torch's number of threads back: it belongs to the process, and sums differ with it in their last bits."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with GLUE files, corpus and vocabulary, where it lies beside the repository."""
    if not _SHARED.is_dir():
        pytest.skip("needs the data folder beside the repository (../shared/data)")
    return _SHARED


WORDS = "a and but dull film fine good great how is it long moving no not plot so the too very was what who why".split()
"""Words of the vocabulary that :func:`save_classifier` gives its models."""


@pytest.fixture(scope="session")
def save_classifier(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that saves a tiny classifier of random weights, and gives its folder.

    Its weights are drawn wide, so that its probabilities differ clearly from text to text.
    """

    def save(labels: tuple[str, ...] = ("negative", "positive"), **config_changes: Any) -> Path:
        import torch

        from squeezebert import checkpoint
        from squeezebert.tokenizer import Tokenizer

        folder = tmp_path_factory.mktemp("classifier")
        Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *WORDS]).save(folder)
        changes = {"problem_type": "single_label_classification", "initializer_range": 0.2, **config_changes}
        torch.manual_seed(0)
        loaded = checkpoint.load(
            "tiny", vocab=folder, num_labels=len(labels), id2label=dict(enumerate(labels)), **changes
        )
        checkpoint.save(loaded.model, folder, tokenizer=loaded.tokenizer)
        return folder

    return save


@pytest.fixture(scope="session")
def classifier_folder(save_classifier: Callable[..., Path]) -> Path:
    """A tiny classifier of single texts: negative or positive."""
    return save_classifier()


LETTERS = list("abcdefghijklmnop")
"""Words of :func:`pretraining_corpus`."""


@pytest.fixture(scope="session")
def pretraining_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose documents go through the alphabet, "c c c . d d ."

    Neighbours tell a masked word, and the passage of the earlier letters comes first.
    """
    import numpy as np

    from squeezebert.data.shards import CorpusWriter
    from squeezebert.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("corpus")
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *LETTERS])
    tokenizer.save(folder)
    draw = np.random.default_rng(0)
    with CorpusWriter(folder, tokenizer.vocab_size) as writer:
        for index in range(120):
            lengths = draw.integers(2, 7, draw.integers(4, 16)).tolist()
            first = draw.integers(17 - len(lengths))
            ids = [
                id for sentence, words in enumerate(lengths, start=6 + first) for id in [sentence] * (words - 1) + [5]
            ]
            writer.add("held_out" if index % 5 == 0 else "train", ids, lengths)
        writer.finish(vocabulary={"size": tokenizer.vocab_size, "sha256": ""})
    return folder
