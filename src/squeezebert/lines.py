"""Lines of a text file, plain or compressed (.gz, .zst), in constant memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from squeezebert.errors import InputError, require


class _ZstdFile(io.RawIOBase):
    """Bytes of a file of zstd frames. zstandard's own reader ends quietly where the last frame is cut off."""

    def __init__(self, zstandard: Any, file: IO[bytes]) -> None:
        self._zstandard = zstandard
        self._file = file
        self._decoder = zstandard.ZstdDecompressor().decompressobj()
        self._inside_frame = False
        self._packed = b""
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            block = self._packed or self._file.read(1 << 14)
            if not block:
                if self._inside_frame:
                    raise EOFError("the last zstd frame is cut off")
                return 0
            if self._decoder.eof:
                self._decoder = self._zstandard.ZstdDecompressor().decompressobj()
            try:
                self._unpacked = memoryview(self._decoder.decompress(block))
            except self._zstandard.ZstdError as error:
                raise zlib.error(str(error)) from error
            self._inside_frame = not self._decoder.eof
            self._packed = self._decoder.unused_data if self._decoder.eof else b""
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: Path) -> IO[bytes]:
    try:
        if path.suffix.lower() == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        if path.suffix.lower() == ".zst":
            return io.BufferedReader(_ZstdFile(require("zstandard", "train"), path.open("rb")), buffer_size=1 << 16)
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder, not a file") from None


def lines_with_ends(path: str | Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file with their line ends, which only a line feed makes (``\n`` or ``\r\n``).

    A byte-order mark at the start is dropped.

    Raises:
        InputError: The file is missing, empty, cut off, not UTF-8 or holds NUL bytes; the message names file and line.
    """
    path = Path(path)
    number = 0
    with _open(path) as file:
        try:
            for number, raw in enumerate(file, start=1):
                if b"\0" in raw:
                    raise InputError(f"{path}:{number}: holds a NUL byte, so it is not text in UTF-8; save it as UTF-8")
                try:
                    # "utf-8-sig" on every line would also drop a mark that belongs to the text.
                    yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}:{number}: byte {error.start + 1} of the line (0x{raw[error.start]:02x}) is not UTF-8; "
                        "save the file as UTF-8"
                    ) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{path}: damaged or cut off after line {number} ({error}); fetch it again") from None
    if not number:
        raise InputError(f"{path}: the file is empty")


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end); raises as :func:`lines_with_ends`."""
    for number, line in enumerate(lines_with_ends(path), start=1):
        yield number, line.removesuffix("\n").removesuffix("\r")
