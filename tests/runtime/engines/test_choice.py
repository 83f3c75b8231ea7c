from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squeezebert.errors import InputError
from squeezebert.export.native import export
from squeezebert.files import read_json, write_json
from squeezebert.runtime.engines import choice, native
from squeezebert.runtime.engines.exported import ExportedEngine
from squeezebert.runtime.engines.reference import ReferenceEngine
from squeezebert.runtime.engines.torch import TorchEngine


@pytest.fixture
def artifact_folder(classifier_folder: Path, tmp_path: Path) -> Path:
    export(classifier_folder, tmp_path / "artifact")
    return tmp_path / "artifact"


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library_path", lambda: None)
    native._library.cache_clear()  # an earlier test may have loaded it


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    find = choice.importlib.util.find_spec
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))


@pytest.mark.parametrize(
    ("asked", "library", "torch", "gpu", "found"),
    [
        ({}, True, True, False, "native"),
        ({"device": "cpu"}, True, True, True, "native"),
        ({}, True, True, True, "torch"),
        ({}, True, False, True, "native"),
        ({}, False, True, False, "torch"),
        ({}, False, False, False, "numpy"),
        ({"device": "cuda"}, True, True, True, "torch"),
        ({"engine": "torch"}, True, True, False, "torch"),
        ({"engine": "native"}, True, True, True, "native"),
    ],
)
def test_the_fastest_engine_that_is_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    library: bool,
    torch: bool,
    gpu: bool,
    found: str,
) -> None:
    monkeypatch.setattr(native, "library_path", lambda: tmp_path if library else None)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object() if torch else None)
    monkeypatch.setattr(choice, "_has_gpu", lambda: gpu)
    assert choice._choose(tmp_path, **{"engine": "auto", "device": "auto", **asked}) == found


@pytest.mark.usefixtures("no_library")
def test_a_slower_engine_says_so(
    classifier_folder: Path, artifact_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_has_gpu", lambda: False)
    assert isinstance(choice.load_classifier(classifier_folder), TorchEngine)
    assert isinstance(choice.load_classifier(artifact_folder), ReferenceEngine)
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "torch runs the model",
        "NumPy runs the model",
    ]
    choice.load_classifier(classifier_folder, engine="torch")  # as asked
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("no_library")
def test_an_artifact_of_another_runtime_is_its_own(
    artifact_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_json(artifact_folder / "config.json")
    write_json(artifact_folder / "config.json", {**values, "format": "squeezebert-onnx"})
    loaded = object()
    monkeypatch.setattr(ExportedEngine, "load", lambda source, threads: loaded)
    assert choice.load_classifier(artifact_folder) is loaded
    assert caplog.records == []  # the native engine is not there, and is not missed
    with pytest.raises(InputError, match="exported as onnx, which native does not run; leave out --engine"):
        choice.load_classifier(artifact_folder, engine="native")


@pytest.mark.usefixtures("no_library", "no_torch")
def test_numpy_runs_a_checkpoint_where_nothing_else_can(classifier_folder: Path) -> None:
    assert isinstance(choice.load_classifier(classifier_folder), ReferenceEngine)


@pytest.mark.usefixtures("no_library")
def test_what_is_not_there_is_refused(classifier_folder: Path, artifact_folder: Path) -> None:
    for source, asked, message in (
        (classifier_folder, {"engine": "native"}, "has no native engine"),
        (classifier_folder, {"engine": "native", "device": "cuda"}, "runs on the CPU; choose --engine torch"),
        (classifier_folder, {"engine": "onnx"}, "engine 'onnx' is unknown; use one of auto, native, torch"),
        (artifact_folder, {"engine": "torch"}, "an exported model, which torch does not run"),
        (artifact_folder, {"device": "cuda"}, "an exported model runs on the CPU"),
        ("tiny", {}, "a size name stands for random weights, which predict nothing"),
    ):
        with pytest.raises(InputError, match=message):
            choice.load_classifier(source, **asked)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no masked language model's head, but sequence_classification"):
        choice.load_masked_lm(artifact_folder)


@pytest.mark.parametrize("exported", [True, False])
def test_torch_is_never_imported_on_the_native_path(
    save_classifier: Callable[..., Path], tmp_path: Path, exported: bool, native_library: Path
) -> None:
    folder = save_classifier()
    if exported:
        export(folder, tmp_path / "artifact")
        folder = tmp_path / "artifact"
    code = f"""
import os, sys
os.environ[{native.LIBRARY_VARIABLE!r}] = {str(native_library)!r}
from squeezebert.cli import main
assert main(["classify", "--model", {str(folder)!r}, "--device", "cpu", "a good film"]) == 0
from squeezebert import Classifier
classifier = Classifier.load({str(folder)!r}, device="cpu")
classifier.predict(["a", "b"])
classifier.save({str(tmp_path / "copy")!r})
print(sorted(name for name in ("torch", "transformers", "pyarrow", "logging.config") if name in sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    assert run.stderr == ""
