"""Shared fixtures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Models for tests are so small that threads only wait for one another; on a busy machine, for whole scheduler ticks.
# Set before torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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


_NATIVE = Path(__file__).resolve().parents[1] / "native"


@pytest.fixture(scope="session")
def native_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of the native engine: the installed one, or built from the sources; once for all tests that need it."""
    from squeezebert.runtime.engines import native

    installed = native.library_path()
    if installed is not None:
        return installed
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    build = tmp_path_factory.mktemp("native")
    subprocess.run(["cmake", "-S", _NATIVE, "-B", build, "-DSQB_TESTS=OFF"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build, "--parallel", "2"], check=True, capture_output=True)
    return next(build.glob("libsqueezebert.*"))


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


_PAIRS = ("sentence1", "sentence2")
_GLUE_COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # Folder -> columns of the labelled files, columns of the test files, in the official layout.
    "CoLA": (("source", "label", "mark", "sentence"), ("index", "sentence")),
    "SST-2": (("sentence", "label"), ("index", "sentence")),
    "MRPC": (("Quality", "#1 ID", "#1 String", "#2 String"), ("index", "#1 ID", "#1 String", "#2 String")),
    "STS-B": (("index", "genre", *_PAIRS, "score"), ("index", "genre", *_PAIRS)),
    "QQP": (("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), ("id", "question1", "question2")),
    "MNLI": (("index", "genre", *_PAIRS, "gold_label"), ("index", "genre", *_PAIRS)),
    "QNLI": (("index", "question", "sentence", "label"), ("index", "question", "sentence")),
    "RTE": (("index", *_PAIRS, "label"), ("index", *_PAIRS)),
    "WNLI": (("index", *_PAIRS, "label"), ("index", *_PAIRS)),
    "diagnostic": ((), ("index", *_PAIRS)),
}
_GLUE_LABELS = {
    "MNLI": ("entailment", "neutral", "contradiction"),
    "STS-B": ("0.5", "2.25", "4.75"),
    "QNLI": ("not_entailment", "entailment"),
    "RTE": ("not_entailment", "entailment"),
}


@pytest.fixture(scope="session")
def write_glue() -> Callable[..., Path]:
    """A function that writes GLUE in its official layout, a few rows a file, whose labels follow from a word."""

    def write(root: Path, *, rows: int = 8, test_rows: int = 0) -> Path:
        for folder, (labelled, unlabelled) in _GLUE_COLUMNS.items():
            sets = ("_matched", "_mismatched") if folder == "MNLI" else ("",)
            files = {} if folder == "diagnostic" else {"train": (labelled, rows)}
            files |= {f"dev{name}": (labelled, rows) for name in sets if labelled}
            tests = ("diagnostic",) if folder == "diagnostic" else tuple(f"test{name}" for name in sets)
            files |= {name: (unlabelled, test_rows) for name in tests if test_rows}
            for name, (columns, count) in files.items():
                lines = [_glue_row(folder, columns, number) for number in range(count)]
                header = [] if folder == "CoLA" and not name.startswith("test") else ["\t".join(columns)]
                (root / folder).mkdir(parents=True, exist_ok=True)
                (root / folder / f"{name}.tsv").write_text("".join(f"{line}\n" for line in header + lines))
        return root

    return write


def _glue_row(folder: str, columns: tuple[str, ...], number: int) -> str:
    labels = _GLUE_LABELS.get(folder, ("0", "1"))
    kind = number % len(labels)
    cells = {"index": str(number), "id": str(number), "source": "x", "mark": ""}
    cells |= dict.fromkeys(("label", "Quality", "score", "is_duplicate", "gold_label"), labels[kind])
    text = f"the {WORDS[kind]} film {WORDS[number % 7]}"
    cells |= dict.fromkeys(("sentence", "sentence1", "question1", "#1 String"), text)
    cells |= dict.fromkeys(("sentence2", "question2", "question", "#2 String"), f"a {WORDS[kind + 5]} plot")
    return "\t".join(cells.get(column, "-") for column in columns)
