from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from squeezebert.bench import cases
from squeezebert.errors import InputError


def test_shapes() -> None:
    assert cases.shapes(["8x128", "sst2", "1x512"]) == {
        "8x128": {"batch": 8, "tokens": 128},
        "1x512": {"batch": 1, "tokens": 512},
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1*32", "'1\\*32' is neither rows x tokens, such as 8x128, nor one of sst2, qnli"),
        ("mnli", "'mnli' is neither"),
        ("0x32", "0x32 needs at least 1 row"),
        ("1x513", "1x513 needs at least 1 row, and 1 to 512 tokens"),
    ],
)
def test_bad_shapes(name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--cases: {message}"):
        cases.shapes([name])


def test_texts(write_glue: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_glue(tmp_path, rows=9)
    every = cases.texts("sst2", folder)
    assert len(every) == 9
    assert every[0][1] is None
    monkeypatch.setattr(cases, "MOST_TEXTS", 4)
    assert cases.texts("sst2", folder) == [every[0], every[3], every[6]]
    assert all(pair for _, pair in cases.texts("qnli", folder))
