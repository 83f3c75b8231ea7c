"""Models that ship inside the package: each a folder here, exported for the native engine, with its card."""

from __future__ import annotations

from pathlib import Path

from squeezebert import artifact

DEFAULT = "small-sst2"
"""What classifies where no model is named: English reviews, as negative or positive."""

_FOLDER = Path(__file__).resolve().parent


def shipped() -> list[str]:
    """Names of the models in this installation."""
    return sorted(folder.name for folder in _FOLDER.iterdir() if artifact.is_artifact(folder))


def find(source: str | Path) -> str | Path:
    """Folder of the model that ``source`` names, or that a page holds (:func:`squeezebert.artifact.locate`).

    Any other source is given back as it is. A folder of that name comes first.
    """
    if isinstance(source, str) and source in shipped() and not Path(source).exists():
        return _FOLDER / source
    return artifact.locate(source)
