"""Small checkpoints of every head, artifacts made of them once for all tests, and what each format must refuse."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.files import read_json, write_json

ExportOnce = Callable[..., Path]
GROUPS = ("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups")


@pytest.fixture(scope="session")
def source(save_classifier: Callable[..., Path]) -> Path:
    """A classifier of one layer, for the formats whose converters are slow."""
    return save_classifier(num_hidden_layers=1)


@pytest.fixture(scope="session")
def save_head(save_classifier: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that saves a model of one layer with a head, and the vocabulary of the classifiers.

    Two groups, for converters take their time over every product. Weights are drawn less wide than the classifiers', or
    the rounding of int8 would be magnified where tanh, in the pooler, is steepest.
    """

    def save(head: str) -> Path:
        import torch

        from squeezebert import checkpoint
        from squeezebert.tokenizer import Tokenizer

        torch.manual_seed(1)
        vocab = save_classifier()
        changes: dict[str, Any] = dict.fromkeys(GROUPS, 2)
        if head == "token_classification":
            changes["num_labels"] = 3
        loaded = checkpoint.load("tiny", head, vocab=vocab, num_hidden_layers=1, initializer_range=0.05, **changes)
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


@pytest.fixture
def check_head(save_head: Callable[[str], Path], tmp_path: Path) -> Callable[..., artifact.Manifest]:
    """A function that converts a model with a head, and holds the result beside PyTorch as an export does.

    It makes no fp32 artifact to be compared with, so that every head in every precision takes little time.
    """

    def check(format: str, precision: str, head: str, max_length: int | None = None) -> artifact.Manifest:
        from squeezebert.export import build, graph

        loaded = graph.load(save_head(head), max_length, build.converter(format).HEADS)
        manifest = build.write(format, loaded, tmp_path, precision)
        report = build.examine(tmp_path, manifest, build.record(loaded), graph=loaded)
        assert report.failed == ()
        assert (manifest.head, manifest.precision) == (head, precision)
        return manifest

    return check


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path, Callable[[Path], None]], str]:
    """A function that breaks a copy of an artifact, and gives what verification says when it refuses the copy."""

    def check(folder: Path, damage: Callable[[Path], None]) -> str:
        copy = tmp_path / "broken"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        damage(Path(artifact.locate(copy)))
        capsys.readouterr()
        assert main(["export", "verify", str(copy)]) == 3
        return capsys.readouterr().err

    return check


@pytest.fixture
def refuse_swapped_labels(refused: Callable[[Path, Callable[[Path], None]], str]) -> Callable[[Path], str]:
    """A function that makes sure that an artifact of a classifier is refused with its labels in another order."""

    def swap(folder: Path) -> None:
        values = read_json(folder / artifact.CONFIG)
        write_json(folder / artifact.CONFIG, {**values, "labels": values["labels"][::-1]})

    def check(folder: Path) -> str:
        said = refused(folder, swap)
        assert "labels: positive, negative, where the checkpoint has negative, positive" in said
        return said

    return check
