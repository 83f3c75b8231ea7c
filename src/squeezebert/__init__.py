"""SqueezeBERT, whole: pretrain, finetune, distil, score, and run a small, fast text classifier.

The front door is :class:`Classifier`; every other room is a submodule (docs/architecture.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Classifier", "Prediction", "Tokenizer", "__version__"]

if TYPE_CHECKING:
    from squeezebert.classifier import Classifier
    from squeezebert.runtime import Prediction
    from squeezebert.tokenizer import Tokenizer

_HOMES = {
    "Classifier": "squeezebert.classifier",
    "Prediction": "squeezebert.runtime",
    "Tokenizer": "squeezebert.tokenizer",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import squeezebert`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'squeezebert' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
