from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from squeezebert.artifact import Manifest
from squeezebert.export.stored import altered, digest, digests, file_bytes, vocabulary

MANIFEST = Manifest(
    head="encoder", labels=(), problem_type=None, max_position_embeddings=512, max_length=None, pair=None
)


@pytest.fixture
def written(tmp_path: Path) -> Manifest:
    """A file, a package of two files, and a companion, with what a manifest says of them."""
    (tmp_path / "model.bin").write_bytes(b"weights")
    (tmp_path / "package" / "data").mkdir(parents=True)
    (tmp_path / "package" / "index").write_bytes(b"a")
    (tmp_path / "package" / "data" / "weights").write_bytes(b"bc")
    (tmp_path / "model.ort").write_bytes(b"same")
    return replace(
        MANIFEST,
        files={"model.bin": 7, "package": 3},
        companions={"model.ort": 4},
        sha256=digests(tmp_path, ("model.bin", "package", "model.ort")),
    )


def test_hash_of_a_file_is_the_plain_one(written: Manifest, tmp_path: Path) -> None:
    assert written.sha256["model.bin"] == hashlib.sha256(b"weights").hexdigest()
    assert file_bytes(tmp_path / "package") == 3
    assert altered(tmp_path, written) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.bin").write_bytes(b"weighty"), "files: model.bin is not as it was written"),
        (lambda folder: (folder / "model.ort").unlink(), "files: model.ort is missing"),
        (
            lambda folder: (folder / "model.ort").write_bytes(b"sam"),
            "files: model.ort has 3 bytes, where the manifest says 4",
        ),
        # The same bytes, otherwise cut into files, or under another name.
        (
            lambda folder: [
                (folder / "package" / "index").write_bytes(b"ab"),
                (folder / "package" / "data" / "weights").write_bytes(b"c"),
            ],
            "files: package is not as it was written",
        ),
        (
            lambda folder: (folder / "package" / "index").rename(folder / "package" / "other"),
            "files: package is not as it was written",
        ),
    ],
)
def test_what_was_changed_is_named(
    written: Manifest, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(tmp_path)
    (said,) = altered(tmp_path, written)
    assert said.startswith(message)


def test_the_vocabulary_counts(written: Manifest, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"lowercase": true}')
    (tmp_path / "vocab.txt").write_text("a")
    assert vocabulary(tmp_path) == ["tokenizer.json", "vocab.txt"]
    manifest = replace(written, sha256={**written.sha256, **digests(tmp_path, vocabulary(tmp_path))})
    (tmp_path / "vocab.txt").unlink()  # a page leaves it out
    assert altered(tmp_path, manifest) == []
    (tmp_path / "tokenizer.json").write_text('{"lowercase": false}')
    (said,) = altered(tmp_path, manifest)
    assert said.startswith("files: tokenizer.json is not as it was written")


def test_without_hashes_sizes_are_compared(written: Manifest, tmp_path: Path) -> None:
    """As manifests of former versions are."""
    older = replace(written, sha256={})
    (tmp_path / "model.bin").write_bytes(b"weighty")
    assert altered(tmp_path, older) == []
    (tmp_path / "model.bin").write_bytes(b"weight")
    assert altered(tmp_path, older) == ["files: model.bin has 6 bytes, where the manifest says 7"]


def test_a_large_file_is_hashed_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than is read at a time
    (tmp_path / "model.bin").write_bytes(content)
    assert digest(tmp_path / "model.bin") == hashlib.sha256(content).hexdigest()
