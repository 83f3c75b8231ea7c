from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.runtime.engines.described import Described

MANIFEST = {
    "format": "squeezebert-native",
    "format_version": 1,
    "head": "sequence_classification",
    "num_labels": 2,
    "labels": ["bad", "good"],
    "problem_type": None,
    "max_position_embeddings": 512,
}


def write(folder: Path, **changes: Any) -> Path:
    """A folder with a manifest alone."""
    (folder / "config.json").write_text(json.dumps(MANIFEST | changes), encoding="utf-8")
    return folder


def test_reads_the_manifest(tmp_path: Path) -> None:
    manifest = artifact.read_manifest(write(tmp_path, max_length=128, pair=True))
    assert (manifest.format, manifest.labels, manifest.max_length, manifest.pair) == (
        "native", ("bad", "good"), 128, True,
    )  # fmt: skip
    assert artifact.read_manifest(write(tmp_path, head="encoder", labels=[])).labels == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "bert"}, "not an exported model"),
        ({"format_version": 2}, "format version 2, but this program reads 1"),
        ({"head": "multiple_choice"}, "head is 'multiple_choice', not one of"),
        ({"labels": "good"}, "labels must be a list of names"),
        ({"labels": ["good"]}, "num_labels is 2, but labels names 1"),
        ({"num_labels": None}, "num_labels is None, but labels names 2"),
        ({"max_position_embeddings": 0}, "must be a positive whole number, not 0"),
        ({"max_length": 513}, "max_length must be a whole number from 1 to 512, not 513"),
        ({"lengths": [600]}, "lengths must be whole numbers from 1 to 512"),
        ({"tolerance": -1}, "tolerance must be a positive number, not -1"),
        ({"files": [1]}, "files must be an object"),
        ({"sha256": "00"}, "sha256 must be an object"),
    ],
)
def test_refuses(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    where = re.escape(str(tmp_path / "config.json"))
    with pytest.raises(InputError, match=f"^{where}: .*{re.escape(message)}"):
        artifact.read_manifest(write(tmp_path, **changes))


@pytest.mark.parametrize("kind", ["ranking", ["regression"], 1])
def test_refuses_an_unknown_kind_of_output(tmp_path: Path, kind: Any) -> None:
    manifest = artifact.read_manifest(write(tmp_path, problem_type=kind))
    with pytest.raises(InputError, match=r"config\.json: problem_type .* is none of single_label_classification"):
        Described(manifest, tmp_path)


def test_a_page_stands_for_the_model_in_it(tmp_path: Path) -> None:
    page = tmp_path / "page"
    (page / "model").mkdir(parents=True)
    assert artifact.locate(page) == page  # nothing is in it
    write(page / "model")
    assert artifact.locate(page) == artifact.locate(str(page)) == page / "model"
    assert artifact.locate(page / "model") == page / "model"
    (page / "config.json").write_text("{}")  # a checkpoint that holds a folder of that name
    assert artifact.locate(page) == page
    assert artifact.locate("owner/name") == "owner/name"


@pytest.mark.parametrize(("length", "good"), [(4, False), (5, True), (512, True), (513, False)])
def test_lengths_that_texts_can_be_cut_to(length: int, good: bool) -> None:
    if good:
        artifact.check_length(length, 512)
    else:
        with pytest.raises(InputError, match=f"max length must lie between 5 and the model's 512, not {length}"):
            artifact.check_length(length, 512)
