from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from squeezebert.errors import InputError
from squeezebert.lines import lines_with_ends, numbered_lines

zstandard = pytest.importorskip("zstandard")

_TEXT = "one\r\n\ntwo \x85\u2028\x0bstill two\nthrée"


@pytest.mark.parametrize("suffix", [".txt", ".gz", ".zst", ".GZ"])
def test_lines_end_at_line_feeds_only(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(suffix.lower(), bytes)
    path.write_bytes(pack(_TEXT.encode()))
    assert list(numbered_lines(path)) == [(1, "one"), (2, ""), (3, "two \x85\u2028\x0bstill two"), (4, "thrée")]
    assert "".join(lines_with_ends(path)) == _TEXT


def test_byte_order_mark_is_dropped_at_the_start_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("\ufeffone\n\ufefftwo\n", encoding="utf-8")
    assert list(numbered_lines(path)) == [(1, "one"), (2, "\ufefftwo")]


def test_several_frames_follow_each_other(tmp_path: Path) -> None:
    # More than the reader takes at a time, packed and unpacked.
    lines = [f"{number**7}\n" for number in range(50_000)]
    packed = zstandard.compress("".join(lines[:100]).encode()) + zstandard.compress("".join(lines[100:]).encode())
    assert len(packed) > 100_000
    (tmp_path / "file.zst").write_bytes(packed)
    assert list(lines_with_ends(tmp_path / "file.zst")) == lines


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt: the file is empty"),
        ("a.txt", b"fine\nb\xe9d\n", "a.txt:2: byte 2 of the line (0xe9) is not UTF-8"),
        ("a.txt", "fine\n".encode("utf-16"), "a.txt:1: holds a NUL byte"),
        ("a.gz", gzip.compress(b"fine\n" * 9, mtime=0)[:-9], "a.gz: damaged or cut off after line"),
        ("a.gz", b"not packed", "a.gz: damaged or cut off after line 0"),
        ("a.zst", zstandard.compress(b"fine\n" * 9)[:-3], "a.zst: damaged or cut off after line"),
        ("a.zst", b"not packed", "a.zst: damaged or cut off after line 0"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(numbered_lines(tmp_path / name))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(numbered_lines(tmp_path / "missing.txt"))
    with pytest.raises(InputError, match="this is a folder"):
        list(numbered_lines(tmp_path))
