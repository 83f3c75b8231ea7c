from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export import native, web
from squeezebert.runtime import models
from squeezebert.runtime.engines.native import library_path


def test_folder_is_whole(classifier_folder: Path, tmp_path: Path) -> None:
    assert main(["export", "web", str(classifier_folder), str(tmp_path / "site")]) == 0
    site = tmp_path / "site"
    assert sorted(file.name for file in (site / "model").iterdir()) == sorted((*web.MODEL_FILES, artifact.GOLDEN))
    assert artifact.read_manifest(site / "model").labels == ("negative", "positive")
    for name in ("main.js", "worker.js", "thread.js", "style.css", "squeezebert.wasm", "squeezebert-relaxed.wasm"):
        assert (site / name).stat().st_size > 0
    # Every file that the page names is there.
    page = (site / "index.html").read_text(encoding="utf-8")
    assert 'src="main.js"' in page
    assert 'href="style.css"' in page
    # A page may be written again, and from an exported model.
    native.export(classifier_folder, tmp_path / "artifact")
    web.export(tmp_path / "artifact", site)
    assert (site / "model" / "model.safetensors").read_bytes() == (tmp_path / "artifact/model.safetensors").read_bytes()


def test_shipped_model_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it is: made from it anew, it would take torch."""
    table = tmp_path / "dev.csv"
    table.write_text("text,label\ngood,positive\n")
    assert main(["export", "web", models.DEFAULT, str(tmp_path / "site"), "--dev", str(table)]) == 2
    assert "is exported already; score it with" in capsys.readouterr().err
    assert main(["export", "web", models.DEFAULT, str(tmp_path / "site")]) == 0
    assert "verified" not in capsys.readouterr().out
    for name in web.MODEL_FILES:
        shipped = Path(models.find(models.DEFAULT)) / name
        assert (tmp_path / "site" / "model" / name).read_bytes() == shipped.read_bytes()


@pytest.mark.skipif(library_path() is None, reason="built without the native engine")
def test_a_page_stands_for_its_model(
    classifier_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    refuse_swapped_labels: Callable[[Path], str],
) -> None:
    site = tmp_path / "site"
    words = ["export", "web", str(classifier_folder), str(site), "--precision", "int8", "--max-length", "64"]
    assert main(words) == 0
    assert artifact.read_manifest(site / "model").max_position_embeddings == 64
    assert main(["export", "verify", str(site)]) == 0
    assert main(["export", "verify", str(site), "--checkpoint", str(classifier_folder)]) == 0
    assert "of the labels of" in capsys.readouterr().out
    texts = ["a great film", "dull"]
    assert main(["classify", "--model", str(site), *texts]) == 0
    got = capsys.readouterr().out
    assert main(["classify", "--model", str(site / "model"), *texts]) == 0
    assert capsys.readouterr().out == got
    refuse_swapped_labels(site)
    # A page may be made from a page's model, whose golden outputs come along; its length is what it is.
    assert main(["export", "web", str(site), str(tmp_path / "again")]) == 0
    assert main(["export", "verify", str(tmp_path / "again")]) == 0
    capsys.readouterr()
    assert main(["export", "web", str(site), str(tmp_path / "third"), "--max-length", "32"]) == 2
    error = capsys.readouterr().err
    assert "is exported already, up to its own length; give --max-length a checkpoint" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "third").exists()


def test_refusals(classifier_folder: Path, save_classifier: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files"):
        web.export(classifier_folder, tmp_path / "mine")
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    # A model beside other files is no page that was written before.
    native.export(classifier_folder, tmp_path / "mine" / "model")
    with pytest.raises(InputError, match=r"holds other files, such as letter\.txt"):
        web.export(classifier_folder, tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    native.export(classifier_folder, tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.safetensors").open("ab") as file:
        file.write(b"0")
    with pytest.raises(InputError, match=r"files: model\.safetensors has .* bytes, where"):
        web.export(tmp_path / "damaged", tmp_path / "site")
    native.export(classifier_folder, tmp_path / "artifact")
    (tmp_path / "artifact" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        web.export(tmp_path / "artifact", tmp_path / "site")
    config = json.loads((tmp_path / "artifact" / "config.json").read_text())
    (tmp_path / "artifact" / "config.json").write_text(json.dumps({**config, "head": "encoder"}))
    with pytest.raises(InputError, match="its head is encoder"):
        web.export(tmp_path / "artifact", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_failed_model_stays_marked(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    native.export(classifier_folder, tmp_path / "artifact")
    config = json.loads((tmp_path / "artifact" / "config.json").read_text())
    values = {**config, "report": {"failed": ["difference: 20 %"]}}
    (tmp_path / "artifact" / "config.json").write_text(json.dumps(values))
    assert main(["export", "web", str(tmp_path / "artifact"), str(tmp_path / "site")]) == 0
    assert capsys.readouterr().out.endswith("MB, although it fails: difference: 20 %\n")


def test_built_page_is_small() -> None:
    sizes = {file.name: file.stat().st_size for file in web.PAGE.iterdir()}
    assert sum(sizes.values()) < 1_000_000, sizes
