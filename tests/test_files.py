"""Outputs appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squeezebert.errors import InputError, MissingExtraError, require
from squeezebert.files import atomic_folder, atomic_path, read_json, staged_files, write_json, write_text


def test_a_failed_write_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "former")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "former"
    assert list(path.parent.iterdir()) == [path]
    write_text(path, "later")
    assert path.read_text() == "later"


def test_a_failed_folder_leaves_the_former_one(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("former")

    def fail() -> None:
        with atomic_folder(folder) as temporary:
            (temporary / "b").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in folder.iterdir()] == ["a"]
    with atomic_folder(folder) as temporary:
        (temporary / "b").write_text("later")
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [folder]


def test_files_are_staged_in_a_folder_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    (folder / "other").write_text("stays")
    for target, text in ((link, "one"), (Path(), "two")):
        monkeypatch.chdir(folder)
        with staged_files(target, last="a") as staging:
            (staging / "a").write_text(text)
            (staging / "b").write_text(text)
            assert not any(path.is_file() and path.read_text() == text for path in folder.iterdir())
        assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "other"]
        assert (folder / "a").read_text() == text

    def fail() -> None:
        with staged_files(folder, last="a") as staging:
            (staging / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (folder / "a").read_text() == "two"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "other"]
    assert link.is_symlink()


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with atomic_folder(tmp_path / "link") as temporary:
        (temporary / "a").write_text("text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "a").read_text() == "text"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "text"


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe"):
        write_text(tmp_path / "pipe", "text")
    assert not (tmp_path / "pipe").is_file()


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1.5, None]}
    with pytest.raises(ValueError, match=r"(?i)nan"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == {"é": [1.5, None]}
    (tmp_path / "bad.json").write_text('{\n"a": }')
    for name, words in (("bad.json", "bad.json:2"), ("none.json", "no such file")):
        with pytest.raises(InputError, match=words):
            read_json(tmp_path / name)
    for text in ("[" * 100_000, '{"a": ' + "1" * 5000 + "}"):
        (tmp_path / "absurd.json").write_text(text)
        with pytest.raises(InputError, match=r"absurd\.json: JSON that cannot be read"):
            read_json(tmp_path / "absurd.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_json(tmp_path / "bytes.json")


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'squeezebert\[train\]'"):
        require("no_such_package.inside", "train")
    assert require("json", "train").dumps(1) == "1"
