"""Raw text to documents, documents to sentences.

`find_sources` turns what the user named (files, folders, hub data sets) into sources in a fixed order, `read_documents`
streams the documents of one source, and `Pipeline` cleans a document, decides whether to keep it and splits it into
sentences. Nothing here holds more than one document in memory.
"""

from __future__ import annotations

import hashlib
import html
import importlib.metadata
import json
import logging
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from squeezebert.data.shards import sha256
from squeezebert.data.tables import Columns, iter_rows
from squeezebert.errors import InputError, require
from squeezebert.lines import numbered_lines

Boundary = Literal["blank-line", "file"]
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)
Reason = Literal["empty", "language", "duplicate"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a document is left out: no text is left of it, it is in another language, an earlier one is the same."""

LONGEST_DOCUMENT = 1_000_000
"""Characters after which text without an end in sight is cut into a new document, at a line end."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides which sentences a corpus holds.

    Raises:
        InputError: A value is out of range.
    """

    text_field: str = "text"
    """Field of JSON lines, or column of parquet and hub data sets, that holds a document's text."""
    txt_documents: Boundary = "blank-line"
    """What ends a document in a .txt file: a blank line (as in BERT's create_pretraining_data), or the file's end."""
    join_lines: bool = False
    """Whether a single line break is a blank (text with lines of fixed width) rather than the end of a paragraph."""
    clean: bool = True
    """Whether texts are cleaned, see `clean_lines`."""
    language: str = "en"
    """ISO 639-1 code: which rules split sentences, and which documents the language filter keeps."""
    language_filter: bool = True
    """Whether documents in other languages are left out."""
    duplicate_filter: bool = True
    """Whether a document whose text was seen before is left out."""
    held_out: float = 0.03
    """Share of documents held out of training, chosen by a hash of their text."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out must be at least 0 and below 1, not {self.held_out!r}")
        if self.txt_documents not in BOUNDARIES:
            raise InputError(f"txt_documents {self.txt_documents!r} is unknown; use {' or '.join(BOUNDARIES)}")

    def describe(self) -> dict[str, Any]:
        """Settings and the versions of what applies them, ready for JSON: equal only where the same text results."""
        versions = {"sentencex": importlib.metadata.version("sentencex"), "unicode": unicodedata.unidata_version}
        if self.language_filter:
            versions["py3langid"] = importlib.metadata.version("py3langid")
        return {**asdict(self), "versions": versions}


# --- Sources ----------------------------------------------------------------------------------------------------------

_HUB: dict[str, tuple[str, str | None, str | None, bool]] = {
    # name -> (data set, configuration, revision, whether a row is one line of running text instead of a document)
    "wikipedia": ("wikimedia/wikipedia", "20231101.en", None, False),
    # Its main branch is a loading script, which `datasets` no longer runs; the hub's own conversion is not.
    "bookcorpus": ("bookcorpus/bookcorpus", None, "refs/convert/parquet", True),
}
_HUB |= {data_set: entry for entry in list(_HUB.values()) for data_set in [entry[0]]}
_KINDS = {".txt": "txt", ".jsonl": "table", ".ndjson": "table", ".json": "table", ".parquet": "table"}
_WIKI_FILE = re.compile(r"wiki_\d+")
_USABLE = ".txt, .jsonl (both also as .gz or .zst), .parquet or wiki_NN (WikiExtractor)"


@dataclass(frozen=True)
class Source:
    """One file, or one data set on the hub."""

    name: str
    """Where it lies below what the user named; the same wherever the corpus is built."""
    kind: Literal["txt", "table", "wiki", "hub"]
    """How it is read."""
    path: Path | None
    """The file; None: on the hub."""

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it."""
        if self.path is None:
            return {"name": self.name}
        return {"name": self.name, "bytes": self.path.stat().st_size, "sha256": sha256(self.path)}

    def text_bytes(self, text_field: str) -> int | None:
        """Bytes of text in it, about, for a forecast of the time; None: not known."""
        if self.path is None:
            return None
        size = self.path.stat().st_size
        try:
            if self.path.suffix.lower() == ".parquet":
                return _column_bytes(self.path, text_field)
            return int(size * _unpacked_ratio(self.path))
        except Exception:  # a damaged file is reported, with its line, when it is read
            return size


def _column_bytes(path: Path, column: str) -> int:
    parquet: Any = require("pyarrow.parquet", "tables")
    with parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)


def _unpacked_ratio(path: Path) -> float:
    """How many bytes a byte of a compressed file stands for, judged by its first 256 KiB."""
    with path.open("rb") as file:
        block = file.read(1 << 18)
    if path.suffix.lower() == ".gz":
        return len(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(block)) / len(block)
    if path.suffix.lower() == ".zst":
        decompressor = require("zstandard", "train").ZstdDecompressor()
        return float(len(decompressor.decompressobj().decompress(block)) / len(block))
    return 1.0


def find_sources(inputs: Sequence[str | Path]) -> list[Source]:
    """List what the inputs name, in the order given and, within a folder, by path.

    Args:
        inputs: Files; folders, searched in depth for usable files; ``wikipedia``, ``bookcorpus`` or
            ``hub:owner/name[:configuration]``. A file named twice is read once.

    Raises:
        InputError: An input does not exist, holds nothing usable or is of an unknown kind.
    """
    sources: dict[object, Source] = {}
    for given in map(str, inputs):
        path = Path(given)
        if path.is_dir():
            found = sorted((file.relative_to(path).parts, file) for file in path.rglob("*") if _usable(file))
            if not found:
                raise InputError(f"{path}: no usable file in this folder; usable are {_USABLE}")
            # `resolve` gives "." and ".." a name.
            top = path.resolve().name
            for parts, file in found:
                sources.setdefault(file.resolve(), Source("/".join((top, *parts)), _kind(file), file))
        elif path.exists():
            sources.setdefault(path.resolve(), Source(path.name, _kind(path), path))
        elif given in _HUB or given.startswith("hub:"):
            sources.setdefault(given, Source(given, "hub", None))
        else:
            raise InputError(
                f"{given}: no such file or folder; a hub data set is named wikipedia, bookcorpus or hub:ID"
            )
    if not sources:
        raise InputError("nothing to read: name files, folders or a hub data set")
    return list(sources.values())


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _usable(path: Path) -> bool:
    """Whether a file in a folder is taken: not hidden, not empty, and documents by its name (.json may be anything)."""
    suffix = _suffix(path)
    known = (suffix in _KINDS and suffix != ".json") or _WIKI_FILE.fullmatch(path.name.partition(".")[0])
    return bool(known) and not path.name.startswith(".") and path.is_file() and path.stat().st_size > 0


def _kind(path: Path) -> Literal["txt", "table", "wiki"]:
    if _WIKI_FILE.fullmatch(path.name.partition(".")[0]) and _suffix(path) == "":
        return "wiki"
    kind = _KINDS.get(_suffix(path))
    if kind is None:
        raise InputError(f"{path}: the name does not tell the format; use {_USABLE}")
    return "txt" if kind == "txt" else "table"


# --- Documents --------------------------------------------------------------------------------------------------------


def read_documents(source: Source, settings: Settings) -> Iterator[str]:
    """Stream the raw texts of a source's documents.

    Raises:
        InputError: A line or row is malformed (the message names file and line), or the hub cannot be reached.
        MissingExtraError: A package to read the format is not installed.
    """
    if source.path is None:
        return _hub_documents(source, settings)
    if source.kind == "txt":
        return _txt_documents((line for _, line in numbered_lines(source.path)), settings.txt_documents)
    if source.kind == "wiki":
        return _wiki_documents(source.path)
    return (row.text for row in iter_rows(source.path, Columns(settings.text_field)))


def _txt_documents(lines: Iterable[str], boundary: Boundary) -> Iterator[str]:
    document: list[str] = []
    characters = 0
    for line in lines:
        blank = not line.strip()
        if (blank and boundary == "blank-line") or characters >= LONGEST_DOCUMENT:
            if document:
                yield "\n".join(document)
            document, characters = [], 0
        # In a file that is one document, blank lines part paragraphs.
        if not blank or boundary == "file":
            document.append(line)
            characters += len(line) + 1
    if document:
        yield "\n".join(document)


_WIKI_START = re.compile(r'<doc id="[^"]*".* title="(.*)">')


def _wiki_documents(path: Path) -> Iterator[str]:
    """Articles of one file of WikiExtractor, in its ``<doc>`` form or its JSON form, without their title lines."""
    title: str | None = None
    lines: list[str] = []
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        if title is None:
            if not line.strip():
                continue
            if line.startswith("{"):
                yield _wiki_json(line, where)
                continue
            start = _WIKI_START.fullmatch(line.rstrip())
            if not start:
                raise InputError(f"{where}: neither <doc id=...> nor a JSON object; is this a file of WikiExtractor?")
            title, lines = start[1], []
        elif line.rstrip() == "</doc>":
            yield _wiki_text(title, lines)
            title = None
        else:
            lines.append(line)
    if title is not None:
        raise InputError(f"{path}: ends within article {title!r}, before its </doc>; extract the file again")


def _wiki_json(line: str, where: str) -> str:
    try:
        record = json.loads(line)
        return _wiki_text(record.get("title", ""), record["text"].split("\n"))
    except (ValueError, KeyError, AttributeError):
        raise InputError(f"{where}: not an article of WikiExtractor (a JSON object with a text)") from None


def _wiki_text(title: str, lines: Sequence[str]) -> str:
    """An article's text: entities resolved, which WikiExtractor leaves, and the title it puts on top removed."""
    first = next((index for index, line in enumerate(lines) if line.strip()), None)
    if first is not None and html.unescape(lines[first]).strip() == html.unescape(title).strip():
        lines = lines[first + 1 :]
    return html.unescape("\n".join(lines))


def _hub_documents(source: Source, settings: Settings) -> Iterator[str]:
    datasets = require("datasets", "train")
    if source.name in _HUB:
        data_set, configuration, revision, rows_are_lines = _HUB[source.name]
    else:
        data_set, _, rest = source.name.removeprefix("hub:").partition(":")
        configuration, revision, rows_are_lines = rest or None, None, False

    def texts() -> Iterator[str]:
        # It warns at each of six attempts; one line at the end says the same.
        logger = logging.getLogger("huggingface_hub")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            rows = datasets.load_dataset(data_set, configuration, revision=revision, split="train", streaming=True)
            for row in rows:
                if not isinstance(row.get(settings.text_field), str):
                    fields = ", ".join(row)
                    raise InputError(f"{source.name}: no text in field {settings.text_field!r}; there are {fields}")
                yield row[settings.text_field]
        except InputError:
            raise
        except Exception as error:  # whatever the network, the hub or its client raises
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"{source.name}: cannot be read from the hub ({reason}); check name and network, or give local files"
            ) from None
        finally:
            logger.setLevel(level)

    return _txt_documents(texts(), "file") if rows_are_lines else texts()


# --- Cleaning, filters, sentences -------------------------------------------------------------------------------------

# Line separators besides "\n": carriage return, vertical tab, form feed, next line, line and paragraph separator.
_LINE_ENDS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
# Control characters; soft hyphen, zero-width and bidirectional marks, byte-order mark; replacement character.
_JUNK = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffd]")
_ASCII_JUNK = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_SINGLE_BREAK = re.compile(r"(?<!\n)\n(?!\n)")
_BLANK_LINE = re.compile(r"\n\s*\n")

# A sample of a document to tell its language by: places, and characters at each.
_PLACES, _PIECE = 3, 200
# Less text than this is no ground to drop a document on.
_TELLING = 100
# sentencex never splits inside quotation marks or brackets; a speech longer than this is split from inside.
_LONG_SENTENCE = 500
_OPENING = "\"'“‘«([{"


def clean_lines(text: str) -> list[str]:
    """Clean a text and give its lines that are not empty.

    Unicode NFC; every kind of line separator ends a line; control characters, zero-width and bidirectional marks, soft
    hyphens and U+FFFD vanish; every run of white space becomes one blank. The words are left alone.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _ASCII_JUNK.sub("", text) if text.isascii() else _JUNK.sub("", unicodedata.normalize("NFC", text))
    return [line for line in (" ".join(line.split()) for line in text.split("\n")) if line]


def content_hash(lines: Sequence[str]) -> bytes:
    """16 bytes that are equal for texts equal but for case and white space."""
    return hashlib.blake2b(" ".join(" ".join(lines).lower().split()).encode(), digest_size=16).digest()


class Pipeline:
    """Cleans a document, decides whether to keep it, splits it into sentences.

    Raises:
        InputError: The language is not known to the language filter.
        MissingExtraError: sentencex or py3langid is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._segment: Callable[[str, str], list[str]] = require("sentencex", "train").segment
        self._classify: Callable[[str], tuple[str, float]] | None = None
        if settings.language_filter:
            langid = require("py3langid.langid", "train")
            identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
            if settings.language not in identifier.labels:
                raise InputError(
                    f"language {settings.language!r} is unknown to the language filter; "
                    "use an ISO 639-1 code such as en, or turn the filter off"
                )
            self._classify = identifier.classify

    def lines(self, text: str) -> list[str]:
        """The document's paragraphs, one a line, cleaned if so set."""
        if self._settings.join_lines:
            text = _SINGLE_BREAK.sub(" ", _BLANK_LINE.sub("\n\n", _LINE_ENDS.sub("\n", text)))
        return clean_lines(text) if self._settings.clean else [line for line in text.split("\n") if line.strip()]

    def drop_reason(self, lines: Sequence[str]) -> Reason | None:
        """Why to leave a document out, judged by itself; None: keep it."""
        if not lines:
            return "empty"
        if self._classify is not None:
            sample = _sample(" ".join(lines))
            if len(sample) >= _TELLING and self._classify(sample)[0] != self._settings.language:
                return "language"
        return None

    def sentences(self, lines: Iterable[str]) -> Iterator[str]:
        """Split lines into sentences; a line's end always ends a sentence."""
        for line in lines:
            for sentence in self._segment(self._settings.language, line):
                yield from self._split_long(sentence.strip())

    def _split_long(self, sentence: str) -> Iterator[str]:
        inside = sentence.lstrip(_OPENING)
        if len(sentence) <= _LONG_SENTENCE or len(inside) == len(sentence):
            if sentence:
                yield sentence
            return
        opening = sentence[: len(sentence) - len(inside)]
        for piece in self._segment(self._settings.language, inside):
            if joined := (opening + piece).strip():
                yield joined
            opening = ""


def _sample(text: str) -> str:
    """Pieces from the start, the middle and the end: one place may be a quotation in another language."""
    if len(text) <= _PLACES * _PIECE:
        return text
    step = (len(text) - _PIECE) // (_PLACES - 1)
    return " ".join(text[place * step : place * step + _PIECE] for place in range(_PLACES))
