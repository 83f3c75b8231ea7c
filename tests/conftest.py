"""Shared fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with GLUE files, corpus and vocabulary, where it lies beside the repository."""
    if not _SHARED.is_dir():
        pytest.skip("needs the data folder beside the repository (../shared/data)")
    return _SHARED
