"""Small checkpoints of every head, and artifacts made of them once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ExportOnce = Callable[..., Path]


@pytest.fixture(scope="session")
def source(save_classifier: Callable[..., Path]) -> Path:
    """A classifier of one layer, for the formats whose converters are slow."""
    return save_classifier(num_hidden_layers=1)


@pytest.fixture(scope="session")
def save_head(save_classifier: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that saves a model of one layer with a head, and the vocabulary of the classifiers."""

    def save(head: str) -> Path:
        import torch

        from squeezebert import checkpoint
        from squeezebert.tokenizer import Tokenizer

        torch.manual_seed(1)
        vocab = save_classifier()
        labels = {"num_labels": 3} if head == "token_classification" else {}
        loaded = checkpoint.load("tiny", head, vocab=vocab, num_hidden_layers=1, initializer_range=0.2, **labels)
        folder = tmp_path_factory.mktemp(head)
        checkpoint.save(loaded.model, folder, tokenizer=Tokenizer.load(vocab))
        return folder

    return save


@pytest.fixture(scope="session")
def export_once(
    classifier_folder: Path, save_head: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> ExportOnce:
    """A function that exports a tiny classifier, or a model with another head, and keeps what it made.

    Models this small may well gain no speed in int8, so artifacts are kept by force; tests look at the report.
    """
    made: dict[tuple[Any, ...], Path] = {}

    def export(format: str, precision: str, head: str = "sequence_classification", **options: Any) -> Path:
        from squeezebert.export import build

        key = (format, precision, head, *sorted(options.items()))
        if key not in made:
            source = classifier_folder if head == "sequence_classification" else save_head(head)
            folder = tmp_path_factory.mktemp(format) / "artifact"
            build.export(format, source, folder, precision=precision, force=True, **options)
            made[key] = folder
        return made[key]

    return export
