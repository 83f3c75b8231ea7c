from __future__ import annotations

from pathlib import Path

import pytest

from squeezebert import artifact
from squeezebert.cli import main


def test_native_writes_an_artifact_and_says_its_size(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "artifact"
    for _ in range(2):  # the second replaces the first
        assert main(["export", "native", str(classifier_folder), str(output)]) == 0
    assert artifact.read_manifest(output).labels == ("negative", "positive")
    size = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    assert capsys.readouterr().out.splitlines()[-1] == f"{output}: written, native, {size:.1f} MB"


@pytest.mark.parametrize(
    ("place", "message"),
    [("full", "holds other files, which would be lost; give a new folder"), ("file", "is a file; give a folder")],
)
def test_what_is_no_artifact_is_not_replaced(
    classifier_folder: Path, tmp_path: Path, place: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    assert main(["export", "native", str(classifier_folder), str(tmp_path / place)]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "full" / "letter.txt").read_text() == "dear"


def test_unknown_format_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "gguf", "model", "out"])
    assert stop.value.code == 2
    assert "native" in capsys.readouterr().err
