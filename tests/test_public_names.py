"""What users may import, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import squeezebert

PUBLIC = ["Classifier", "Prediction", "Tokenizer", "__version__"]
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "sklearn", "scipy", "matplotlib", "accelerate", "pandas")


def test_public_names() -> None:
    assert sorted(squeezebert.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(squeezebert, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clasifier'"):
        squeezebert.Clasifier  # noqa: B018


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after ``code``."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import squeezebert, squeezebert.cli",
        "from squeezebert import Classifier, Prediction, Tokenizer",
        "import squeezebert.runtime.predictor, squeezebert.runtime.output, squeezebert.runtime.engines",
        "import squeezebert.evaluation.metrics, squeezebert.evaluation.evaluate",
        "import squeezebert.data.tables, squeezebert.data.tasks, squeezebert.data.collate, squeezebert.model.config",
    ],
)
def test_importing_leaves_heavy_packages_alone(code: str) -> None:
    assert loaded_after(code).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["classify", "--help"],
        ["evaluate", "--help"],
        ["classify", "--model"],
        ["classify", "--model", "m", "--resume", "text"],
        ["evaluate", "--model", "m"],
    ],
)
def test_help_and_wrong_flags_load_neither_numpy_nor_torch(arguments: list[str]) -> None:
    code = f"from squeezebert.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass"
    assert loaded_after(code).isdisjoint({*HEAVY, "numpy", "tokenizers"})
