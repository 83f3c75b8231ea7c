"""Text to :class:`Encoding`: BERT's uncased WordPiece, over the Rust ``tokenizers`` library.

Results equal those of ``transformers``' BertTokenizer called with a batch, in its corners too: a special token written
in a text ("[SEP]") becomes that token, and an empty second text still makes a pair. Stricter here: a ``max_length``
below the number of special tokens is refused (there it switches truncation off), and so is a lone surrogate, by place.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from squeezebert.errors import InputError, require
from squeezebert.files import read_json, write_json, write_text
from squeezebert.lines import numbered_lines

MAX_LENGTH = 512
"""Positions of the published models, tokens."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# In a folder or repository, in the order of preference; the last only adds settings.
FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
"""Names under which a vocabulary is stored."""
_MAX_ALPHABET = 1000
# Texts, and characters of them, handed over at once. The library's encodings take about 100 bytes a token before they
# are truncated here.
_SLICE = 512
_SLICE_CHARACTERS = 1 << 20
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
# tokenizer_config.json's names of the normalizer's settings.
_CONFIG_NAMES = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# What a tokenizer.json must say to be BERT's: (part, field, value, may the field be absent).
# Files of the library's first versions do not name the model's type.
_BERT_PARTS = (
    ("model", "type", "WordPiece", True),
    ("model", "continuing_subword_prefix", "##", False),
    ("model", "unk_token", "[UNK]", False),
    ("model", "max_input_chars_per_word", 100, True),
    ("normalizer", "type", "BertNormalizer", False),
    ("normalizer", "clean_text", True, True),
    ("pre_tokenizer", "type", "BertPreTokenizer", False),
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text, or a pair, as tokens: ``[CLS] text [SEP]`` or ``[CLS] text [SEP] pair [SEP]``, not padded."""

    input_ids: list[int]
    """Token ids. *Shape:* [T]."""
    token_type_ids: list[int]
    """0 up to and including the first ``[SEP]``, 1 after it. *Shape:* [T]."""
    offsets: list[tuple[int, int]] | None = None
    """Each token's characters, (start, end) in its own text; (0, 0) for special tokens added here. None: not asked."""


class Tokenizer:
    """BERT's WordPiece tokenizer. Built by :meth:`load`, :meth:`from_vocab` or :meth:`learn`; safe to share by threads.

    Attributes:
        vocab_size: Number of tokens.
        pad_id: Id of ``[PAD]``; likewise ``unk_id``, ``cls_id``, ``sep_id`` and ``mask_id``.
        special_ids: The ids of these five.
    """

    def __init__(self, tokens: Sequence[str], normalizer: normalizers.BertNormalizer) -> None:
        self._tokens = tuple(tokens)
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        self._normalizer = normalizer
        self._backend = tokenizers.Tokenizer(models.WordPiece(self._ids, unk_token="[UNK]"))
        self._backend.normalizer = normalizer
        self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        separators = (("[SEP]", self._ids["[SEP]"]), ("[CLS]", self._ids["[CLS]"]))
        self._backend.post_processor = processors.BertProcessing(*separators)
        self._backend.decoder = decoders.WordPiece(prefix="##")
        self._backend.add_special_tokens(list(SPECIAL_TOKENS))
        self.vocab_size = len(self._tokens)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self._ids[name] for name in SPECIAL_TOKENS)
        self.special_ids = frozenset(self._ids[name] for name in SPECIAL_TOKENS)

    @classmethod
    def load(cls, source: str | Path) -> Tokenizer:
        """Read a tokenizer.

        Args:
            source: A folder with ``tokenizer.json`` or ``vocab.txt``, either file itself, or the id of a model on the
                hub. Lower-casing is as ``tokenizer_config.json`` in the folder says, else as ``tokenizer.json`` says,
                else on. Padding and truncation stored in ``tokenizer.json`` are ignored.

        Raises:
            InputError: Nothing is there, the hub cannot be reached, or a file is no BERT vocabulary.
        """
        path = Path(source)
        if path.is_dir():
            files = {name: path / name for name in FILES if (path / name).is_file()}
        elif path.exists():
            files = {"tokenizer.json" if path.suffix == ".json" else "vocab.txt": path}
        elif _HUB_ID.fullmatch(str(source)) and path.suffix not in (".json", ".txt"):
            files = _fetch(str(source))
        else:
            raise InputError(f"{source}: no such file or folder")
        settings: dict[str, bool] = {}
        if "tokenizer.json" in files:
            where = files["tokenizer.json"]
            tokens, settings = _read_tokenizer_json(where)
        elif "vocab.txt" in files:
            where = files["vocab.txt"]
            tokens = [token for _, token in numbered_lines(where)]
        else:
            raise InputError(f"{source}: holds neither tokenizer.json nor vocab.txt")
        if "tokenizer_config.json" in files:
            config = files["tokenizer_config.json"]
            settings |= _normalizer_settings(read_json(config), _CONFIG_NAMES, config)
        _check_vocabulary(tokens, str(where))
        return cls(tokens, normalizers.BertNormalizer(**settings))

    @classmethod
    def find(cls, folder: str | Path) -> Tokenizer | None:
        """Read the tokenizer beside a model's weights; None: there is none.

        Raises:
            InputError: A file is no BERT vocabulary.
        """
        there = any((Path(folder) / name).exists() for name in ("tokenizer.json", "vocab.txt"))
        return cls.load(folder) if there else None

    @classmethod
    def from_vocab(cls, tokens: Sequence[str], *, lowercase: bool = True) -> Tokenizer:
        """Build from a vocabulary.

        Args:
            tokens: Every token once, ``##`` before those inside a word; a token's position is its id.
            lowercase: Whether texts are lower-cased and stripped of accents.

        Raises:
            InputError: A special token is missing, or a token is empty, doubled or spans lines.
        """
        _check_vocabulary(tokens, "vocabulary")
        return cls(tokens, normalizers.BertNormalizer(lowercase=lowercase))

    @classmethod
    def learn(cls, texts: Iterable[str], *, vocab_size: int = 30522, min_frequency: int = 2) -> Tokenizer:
        """Learn a vocabulary; the same texts always give the same one.

        Special tokens come first (``[PAD]`` is 0), then the 1,000 commonest characters, then their forms inside a word,
        then merges, commonest first.

        Args:
            texts: Read twice; an iterator, which can be read only once, is held in memory.
            vocab_size: Most tokens to have; a small corpus gives fewer.
            min_frequency: Least number of times that two tokens must meet to become one.

        Raises:
            InputError: There is no text, or ``vocab_size`` cannot hold the characters.
        """
        if min_frequency < 1:
            raise InputError(f"min_frequency must be at least 1, not {min_frequency}")
        if isinstance(texts, Iterator):
            texts = list(texts)
        normalizer = normalizers.BertNormalizer(lowercase=True)
        splitter = pre_tokenizers.BertPreTokenizer()
        alphabet, inner = _alphabet(texts, normalizer, splitter)
        # The trainer numbers "##" characters in the order of a randomly seeded hash map, and breaks ties between merges
        # by these numbers. Naming them all beforehand makes its result the same in every process.
        named = [*SPECIAL_TOKENS, *alphabet, *inner]
        if not alphabet:
            raise InputError("no text to learn a vocabulary from")
        if vocab_size < len(named):
            raise InputError(
                f"vocab_size {vocab_size} cannot hold the {len(SPECIAL_TOKENS)} special tokens and {len(alphabet)} "
                f"characters of these texts; use at least {len(named)}"
            )
        backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizer
        backend.pre_tokenizer = splitter
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            show_progress=False,
            special_tokens=named,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
        )
        backend.train_from_iterator(texts, trainer)
        vocabulary = backend.get_vocab()
        return cls(sorted(vocabulary, key=vocabulary.__getitem__), normalizer)

    def encode(
        self, text: str, pair: str | None = None, *, max_length: int = MAX_LENGTH, offsets: bool = False
    ) -> Encoding:
        """Encode one text or pair; arguments and errors as for :meth:`encode_batch`."""
        return self.encode_batch([text], None if pair is None else [pair], max_length=max_length, offsets=offsets)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        *,
        max_length: int = MAX_LENGTH,
        offsets: bool = False,
    ) -> list[Encoding]:
        """Encode texts, or pairs of texts.

        Args:
            texts: The texts.
            pairs: The second text of each, None where there is none.
            max_length: Most tokens of an encoding, special tokens included. Tokens beyond are dropped from the end, of
                a pair from the longer text first.
            offsets: Whether to say which characters each token stands for; slower.

        Raises:
            InputError: A text is not a string or holds a lone surrogate, ``texts`` and ``pairs`` differ in number, or
                ``max_length`` is too small for the special tokens.
        """
        if pairs is not None and len(pairs) != len(texts):
            raise InputError(f"{len(texts)} texts but {len(pairs)} pairs; give one pair, or None, for each text")
        least = 2 if pairs is None or all(pair is None for pair in pairs) else 3
        if max_length < least:
            raise InputError(f"max_length {max_length} leaves no room for the special tokens; use at least {least}")
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        encodings: list[Encoding] = []
        for part in _slices(texts, pairs):
            seconds: list[str | None] = [None] * (part.stop - part.start) if pairs is None else list(pairs[part])
            try:
                tokens = encode(list(texts[part]), add_special_tokens=False)
                pair_tokens = iter(encode([pair for pair in seconds if pair is not None], add_special_tokens=False))
            except TypeError:
                # The library only says that something is no string; find out which, and why.
                for index, text in enumerate(texts):
                    _check_text(text, f"texts[{index}]")
                for index, pair in enumerate(() if pairs is None else pairs):
                    if pair is not None:
                        _check_text(pair, f"pairs[{index}]")
                raise
            for first, second in zip(tokens, seconds, strict=False):
                encodings.append(self._join(first, None if second is None else next(pair_tokens), max_length, offsets))
            del tokens, pair_tokens  # before the next part's take as much
        return encodings

    def _join(
        self, first: tokenizers.Encoding, second: tokenizers.Encoding | None, max_length: int, offsets: bool
    ) -> Encoding:
        """Truncate and add special tokens.

        Not left to the library: it keeps what it cuts off as further encodings, of a pair every combination, so that
        two texts of a megabyte would fill the memory.
        """
        ids = first.ids
        if second is None:
            del ids[max_length - 2 :]
            spans = [(0, 0), *first.offsets[: len(ids)], (0, 0)] if offsets else None
            return Encoding([self.cls_id, *ids, self.sep_id], [0] * (len(ids) + 2), spans)
        pair_ids = second.ids
        room = max_length - 3
        shorter = min(len(ids), len(pair_ids), room // 2)
        # Of two equally long ones, the second keeps the odd token, as in the library.
        first_room, second_room = (room - shorter, shorter) if len(ids) > len(pair_ids) else (shorter, room - shorter)
        del ids[first_room:], pair_ids[second_room:]
        types = [0] * (len(ids) + 2) + [1] * (len(pair_ids) + 1)
        spans = None
        if offsets:
            spans = [(0, 0), *first.offsets[: len(ids)], (0, 0), *second.offsets[: len(pair_ids)], (0, 0)]
        return Encoding([self.cls_id, *ids, self.sep_id, *pair_ids, self.sep_id], types, spans)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Join tokens to readable text: pieces of a word together, no blank before punctuation. Unknown ids vanish."""
        return str(self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def token_to_id(self, token: str) -> int | None:
        """Id of ``token``; None: not in the vocabulary."""
        return self._ids.get(token)

    def id_to_token(self, index: int) -> str | None:
        """Token with id ``index``; None: not in the vocabulary."""
        return self._tokens[index] if 0 <= index < self.vocab_size else None

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, vocab.txt and tokenizer_config.json, which ``transformers`` reads as a BertTokenizer.

        Raises:
            OSError: The folder cannot be written, or the disk is full.
        """
        folder = Path(folder)
        write_text(folder / "tokenizer.json", self._backend.to_str(pretty=True))
        write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in self._tokens))
        names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL_TOKENS}
        settings = {name: getattr(self._normalizer, ours) for name, ours in _CONFIG_NAMES.items()}
        config = {"tokenizer_class": "BertTokenizer", **settings, "model_max_length": MAX_LENGTH, **names}
        write_json(folder / "tokenizer_config.json", config)


def _slices(texts: Sequence[str], pairs: Sequence[str | None] | None) -> Iterator[slice]:
    """Parts of a batch that are small enough to hand over at once; a text of any length may be one."""
    start = characters = 0
    for index, text in enumerate(texts):
        size = sum(len(each) for each in (text, pairs[index] if pairs else None) if isinstance(each, str))
        if index - start == _SLICE or (index > start and characters + size > _SLICE_CHARACTERS):
            yield slice(start, index)
            start, characters = index, 0
        characters += size
    if start < len(texts):
        yield slice(start, len(texts))


def _check_text(text: object, where: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"{where} is {type(text).__name__}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise InputError(f"{where} holds the lone surrogate {code} at character {error.start}; it is no text") from None


def _check_vocabulary(tokens: Sequence[str], where: str) -> None:
    """Refuse what is no BERT vocabulary; ``where`` stands before the line number."""
    if not tokens:
        raise InputError(f"{where}: the vocabulary is empty; it needs one token a line")
    # All at once where nothing is wrong, as nearly always; one by one to tell what is.
    if not _is_sound(tokens):
        _refuse_token(tokens, where)
    there = set(tokens)
    missing = [name for name in SPECIAL_TOKENS if name not in there]
    if missing:
        raise InputError(f"{where}: no BERT vocabulary, it lacks {', '.join(missing)}")


def _is_sound(tokens: Sequence[str]) -> bool:
    """Whether every token is a text of one line, none of them empty or doubled."""
    try:
        joined = " ".join(tokens)
        joined.encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return all(tokens) and "\n" not in joined and "\r" not in joined and len(set(tokens)) == len(tokens)


def _refuse_token(tokens: Sequence[str], where: str) -> None:
    """Name the first token that is wrong, if any is."""
    lines: dict[str, int] = {}
    for line, token in enumerate(tokens, start=1):
        _check_text(token, f"{where}:{line}: the token")
        if not token or "\n" in token or token.endswith("\r"):
            raise InputError(f"{where}:{line}: {token!r} is no token; it needs one token a line, and no empty lines")
        if lines.setdefault(token, line) != line:
            raise InputError(f"{where}:{line}: token {token!r} is already on line {lines[token]}; remove one of them")


def _read_tokenizer_json(path: Path) -> tuple[list[str], dict[str, bool]]:
    """Tokens in order of id, and the normalizer's settings."""
    content = read_json(path)
    for part, field, wanted, optional in _BERT_PARTS:
        values = content.get(part) if isinstance(content, Mapping) else None
        found = values.get(field, wanted if optional else None) if isinstance(values, Mapping) else None
        if found != wanted:
            raise InputError(f"{path}: no BERT WordPiece tokenizer ({part}: {field} is {found!r}, not {wanted!r})")
    vocabulary = content["model"].get("vocab")
    added = content.get("added_tokens") or []
    ids: list[Any] = list(vocabulary.values()) if isinstance(vocabulary, Mapping) else [None]
    if any(type(index) is not int for index in ids) or sorted(ids) != list(range(len(ids))):
        raise InputError(f"{path}: model: vocab must give each token its id, from 0 without gaps")
    for token in added if isinstance(added, list) else [added]:
        name = token.get("content") if isinstance(token, Mapping) else token
        if name not in SPECIAL_TOKENS:
            raise InputError(
                f"{path}: added token {name!r} is no part of BERT's WordPiece; take it out, or give a vocab.txt instead"
            )
    settings = _normalizer_settings(content["normalizer"], {name: name for name in _CONFIG_NAMES.values()}, path)
    return sorted(vocabulary, key=vocabulary.__getitem__), settings


def _normalizer_settings(content: object, names: Mapping[str, str], path: Path) -> dict[str, bool]:
    """The normalizer's settings, as far as ``content`` states them; ``names``: name there -> the normalizer's own."""
    settings: dict[str, bool] = {}
    for name, ours in names.items():
        value = content.get(name) if isinstance(content, Mapping) else None
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{path}: {name} must be true or false, not {value!r}")
        if value is not None:
            settings[ours] = value
    return settings


def _fetch(source: str) -> dict[str, Path]:
    """Fetch a hub repository's tokenizer files, or find them in the local cache."""
    download = require("huggingface_hub", "hub").hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    # It warns on standard error at each of six attempts; one line at the end says the same.
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    files: dict[str, Path] = {}
    unreachable = False
    try:
        for name in FILES:
            if name == "vocab.txt" and files:
                continue
            try:
                files[name] = Path(download(source, name, local_files_only=unreachable))
            except LocalEntryNotFoundError:
                unreachable = True
            except EntryNotFoundError:
                pass
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"{source}: no such file or folder, and no model on the hub ({reason})") from None
    finally:
        logger.setLevel(level)
    if unreachable and not files:
        raise InputError(f"{source}: no such file or folder, and the hub cannot be reached; check path or network")
    return files


def _alphabet(
    texts: Iterable[str], normalizer: normalizers.BertNormalizer, splitter: pre_tokenizers.BertPreTokenizer
) -> tuple[list[str], list[str]]:
    """The commonest characters after normalization, and "##" before those of them that may stand inside a word."""
    raw_counts: Counter[str] = Counter()
    for number, text in enumerate(texts):
        _check_text(text, f"texts[{number}]")
        raw_counts.update(text)
    counts: Counter[str] = Counter()
    inner: set[str] = set()
    for raw, count in raw_counts.items():
        # Normalization works character by character, so one after an "a" shows what it turns any of its kind into,
        # and whether that continues a word (letters, digits) or stands alone (punctuation, Chinese characters).
        first, *others = (word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str("a" + raw)))
        inner.update(first[1:])
        for character in "".join([first[1:], *others]):
            counts[character] += count
    commonest = sorted(counts, key=lambda character: (-counts[character], character))[:_MAX_ALPHABET]
    alphabet = sorted(commonest)
    return alphabet, [f"##{character}" for character in alphabet if character in inner]
