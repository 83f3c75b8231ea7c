from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
import string
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizerFast
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from squeezebert.errors import InputError
from squeezebert.tokenizer import SPECIAL_TOKENS, Encoding, Tokenizer

# [PAD] is not at 0 and the special tokens do not stand together, so nothing may rely on BERT's ids.
_WORDS = "the film is good un ##believ ##able ##ing hello world 1 ##9 cafe ß 電 影 é й 👍 مر ##حبا"
_SMALL = [
    *("[UNK]", "a", "[SEP]", "[PAD]", "[CLS]", "b", "[MASK]"),
    *(letter for letter in string.ascii_lowercase if letter not in "abjz"),
    *(f"##{letter}" for letter in string.ascii_lowercase if letter not in "qz"),
    *".,!?'-[]#",
    *_WORDS.split(),
]

_HOSTILE = {
    "empty": "",
    "only whitespace": " \t\r\n\u00a0\u2003\u3000\u2028\u200a\x0b\x0c\x85",
    "control characters": "he\x00l\x01lo\x7f wor\x1bld\ufffd \x1c\x1d\x1e\x1f good\u200b\u200e\ufeff film",
    "NUL alone": "\x00",
    "combining accents": "cafe\u0301 e\u0301\u0302\u0303\u0323 \u0301alone n\u0303 Å Å A\u030a ﬁlm",
    "turkish, german, greek": "İstanbul ıI STRASSE straße ẞ ΟΔΟΣ ὈΔΥΣΣΕΎΣ ǅ",
    "chinese, japanese, korean": "我看電影 the電影is 中文、日本語カタカナ ｶﾀｶﾅ 한국어 \U00020000\U0002f800豈",
    "emoji": "good 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 ❤️ 🇩🇪 1️⃣ ☺ end",
    "right to left": "\u202eהסרט טוב\u202c مرحبا بالعالم مَرْحَبًا\u200f film",
    "indic and thai": "नमस्ते दुनिया สวัสดีชาวโลก க்ஷ",
    "punctuation": "don't ... wow!!! «good» ¿qué? $1,000.50 a_b^c`d~e|f C++ #1 @x — – … ‘’“” ＡＢ！ ٫ ₿ ×÷",
    "special tokens": "[SEP] [CLS]film[MASK] [ SEP ] [sep] [[SEP]] [PAD][PAD] ##ing [UNK] [unused1]",
    "private and unassigned": "a\ue000b \u0378 \U000e0001 \U0010ffff \ufffe end",
    "long words": "a" * 100 + " " + "a" * 101 + " " + "ab." * 90,
    # No more than this: for a pair, the library forms every combination of what it cuts off.
    "much punctuation": "!?" * 150,
    "much Chinese": "電影" * 100,
}
_HUGE = {
    "1 MB without a space": "film" * 250_000,
    "1 MB of accents": "e" + "\u0301" * 500_000,
    "1 MB of Chinese": "電影" * 166_667,
}


class Peers(NamedTuple):
    """Our tokenizer and transformers', each from the same vocab.txt."""

    path: Path
    ours: Tokenizer
    theirs: Any


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    path = tmp_path_factory.mktemp("small") / "vocab.txt"
    path.write_text("\n".join(_SMALL) + "\n", encoding="utf-8")
    return Peers(path, Tokenizer.load(path), BertTokenizerFast(vocab=str(path)))


@pytest.fixture(scope="session")
def bert(shared_data: Path) -> Peers:
    path = shared_data / "vocab" / "bert-base-uncased-vocab.txt"
    return Peers(path, Tokenizer.load(path), BertTokenizerFast(vocab=str(path)))


@pytest.fixture(scope="session", params=["small", "bert"])
def peers(request: pytest.FixtureRequest) -> Peers:
    found: Peers = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def documents(shared_data: Path) -> list[str]:
    zstandard = pytest.importorskip("zstandard")
    texts = []
    for part, count, length in (("wiki", 30, 10**9), ("books", 4, 40_000)):
        with (shared_data / "corpus" / part / "validation.jsonl.zst").open("rb") as file:
            reader = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
            texts += [json.loads(next(reader))["text"][:length] for _ in range(count)]
    return texts


def assert_equal_to_theirs(peers: Peers, text: str, pair: str | None, max_length: int) -> None:
    # In batches, because for a single text transformers takes an empty pair for none.
    pairs = None if pair is None else [pair]
    theirs = peers.theirs([text], pairs, truncation=True, max_length=max_length, return_offsets_mapping=True)
    ours = peers.ours.encode(text, pair, max_length=max_length, offsets=True)
    assert ours.input_ids == theirs["input_ids"][0]
    assert ours.token_type_ids == theirs["token_type_ids"][0]
    assert ours.offsets == theirs["offset_mapping"][0]
    # The way without offsets is another function of the library.
    fast = peers.ours.encode(text, pair, max_length=max_length)
    assert fast == Encoding(ours.input_ids, ours.token_type_ids)


# --- equal to transformers ---


@pytest.mark.parametrize("max_length", [2, 3, 17, 512])
@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_texts_equal_transformers(peers: Peers, name: str, max_length: int) -> None:
    assert_equal_to_theirs(peers, _HOSTILE[name], None, max_length)


@pytest.mark.parametrize("name", _HUGE)
def test_huge_texts_equal_transformers(small: Peers, name: str) -> None:
    assert_equal_to_theirs(small, _HUGE[name], None, 512)
    assert_equal_to_theirs(small, "film", _HUGE[name], 512)


@pytest.mark.parametrize("max_length", [3, 4, 5, 18, 512])
@pytest.mark.parametrize(
    "names", zip(_HOSTILE, [*list(_HOSTILE)[1:], "empty"], strict=True), ids=lambda names: names[0]
)
def test_hostile_pairs_equal_transformers(peers: Peers, names: tuple[str, str], max_length: int) -> None:
    assert_equal_to_theirs(peers, _HOSTILE[names[0]], _HOSTILE[names[1]], max_length)


def test_whole_documents_equal_transformers(bert: Peers, documents: list[str]) -> None:
    for text, following in pairwise(documents):
        assert_equal_to_theirs(bert, text, None, 10**9)
        assert_equal_to_theirs(bert, text, following, 512)


def test_documents_equal_the_pure_python_tokenizer(bert: Peers, documents: list[str]) -> None:
    theirs = BertTokenizerLegacy(str(bert.path), model_max_length=10**9)
    for text in documents[::3]:
        ids = theirs.convert_tokens_to_ids(theirs.tokenize(text[:20_000]))
        assert bert.ours.encode(text[:20_000], max_length=10**9).input_ids[1:-1] == ids


_fragments = st.sampled_from(
    [
        "[SEP]",
        "[MASK]",
        "##ing",
        "film",
        "UN",
        "believable",
        " ",
        "\n",
        "é",
        "e\u0301",
        "電",
        "👨‍👩‍👧",
        "İ",
        "\0",
        "a" * 99,
    ]
)
_texts = st.lists(st.text() | _fragments, max_size=12).map("".join)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(text=_texts, pair=st.none() | _texts, max_length=st.integers(3, 40))
def test_any_text_equals_transformers(small: Peers, text: str, pair: str | None, max_length: int) -> None:
    assert_equal_to_theirs(small, text, pair, max_length)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(texts=st.lists(_texts, min_size=2, max_size=8))
def test_batch_equals_single(small: Peers, texts: list[str]) -> None:
    pairs = [*texts[1:], None]
    assert small.ours.encode_batch(texts) == [small.ours.encode(text) for text in texts]
    assert small.ours.encode_batch(texts, pairs, offsets=True) == [
        small.ours.encode(text, pair, offsets=True) for text, pair in zip(texts, pairs, strict=True)
    ]


@pytest.mark.parametrize("skip", [True, False])
def test_decoding_equals_transformers(peers: Peers, skip: bool) -> None:
    drawn = random.Random(0).choices(range(peers.ours.vocab_size), k=2000)
    sentence = peers.ours.encode("Hello, unbelievable world! Don't [MASK] it's 9 films .", "Good?").input_ids
    for ids in (sentence, drawn, [], [peers.ours.unk_id]):
        assert peers.ours.decode(ids, skip_special_tokens=skip) == peers.theirs.decode(ids, skip_special_tokens=skip)


# --- what an encoding is ---


def test_golden_encodings(bert: Peers) -> None:
    # Ids as printed in the documentation of BERT and of its tokenizers.
    encoding = bert.ours.encode("Hello, y'all! How are you 😁 ?", offsets=True)
    assert encoding.input_ids == [101, 7592, 1010, 1061, 1005, 2035, 999, 2129, 2024, 2017, 100, 1029, 102]
    assert encoding.offsets is not None
    assert encoding.offsets[1:4] == [(0, 5), (5, 6), (7, 8)]
    assert encoding.offsets[10] == (26, 27)
    assert bert.ours.encode("[SEP] [sep]").input_ids == [101, 102, 1031, 19802, 1033, 102]


def test_small_pair_by_hand(small: Peers) -> None:
    tokens = ["[CLS]", "un", "##believ", "##able", "film", "[SEP]", "the", "[UNK]", "電", "影", "[SEP]"]
    encoding = small.ours.encode("Unbelievable  FILM", "the żz電影", offsets=True)
    assert [small.ours.id_to_token(index) for index in encoding.input_ids] == tokens
    assert encoding.token_type_ids == [0] * 6 + [1] * 5
    assert encoding.offsets == [
        *[(0, 0), (0, 2), (2, 8), (8, 12), (14, 18), (0, 0)],
        *[(0, 3), (4, 6), (6, 7), (7, 8), (0, 0)],
    ]


def test_offsets_are_the_characters_of_the_tokens(bert: Peers) -> None:
    text = "Über 👩‍🚀 naïve CAFÉS e\u0301tait — 電影, Łódź\x00 über\u00adall unbelievably 𝒳 Ⅷ ŉ"
    encoding = bert.ours.encode(text, offsets=True)
    assert encoding.offsets is not None
    compared = 0
    for index, (start, end) in zip(encoding.input_ids[1:-1], encoding.offsets[1:-1], strict=True):
        token = bert.ours.id_to_token(index)
        assert token is not None
        assert text[start:end].strip()
        if index != bert.ours.unk_id:
            decomposed = unicodedata.normalize("NFD", text[start:end])
            plain = "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Cc", "Cf")).lower()
            assert token.removeprefix("##") == plain
            compared += 1
    assert compared == 15


def test_longer_text_of_a_pair_is_cut_first(small: Peers) -> None:
    ours = small.ours
    encoding = ours.encode("a " * 5000, "b b b b", max_length=20)
    assert ours.decode(encoding.input_ids) == "a " * 13 + "b b b b"
    assert len(encoding.input_ids) == 20


def test_two_huge_texts_fit_in_memory(small: Peers) -> None:
    encoding = small.ours.encode("a " * 300_000, "b " * 300_001, max_length=512)
    assert encoding.token_type_ids == [0] * 256 + [1] * 256
    assert small.ours.decode(encoding.input_ids) == " ".join(["a"] * 254 + ["b"] * 255)


def test_many_texts_keep_their_order(small: Peers) -> None:
    # More than the library is given at once.
    texts = [" ".join("ab"[int(bit)] for bit in f"{number:b}") for number in range(10_000)]
    encodings = small.ours.encode_batch(texts)
    assert [small.ours.decode(encoding.input_ids) for encoding in encodings] == texts
    assert small.ours.encode_batch([]) == []


def test_long_texts_are_handed_over_a_few_at_a_time(small: Peers) -> None:
    # Their tokens at once would fill the memory: about a hundred bytes each.
    program = f"""
import resource
from squeezebert.tokenizer import Tokenizer
tokenizer = Tokenizer.load({str(small.path)!r})
texts = ["a " * 60_000] * 64
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
encodings = tokenizer.encode_batch(texts, ["b " * 60_000, None] * 32, max_length=8)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert [len(encoding.input_ids) for encoding in encodings] == [8] * 64
print(after - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 250_000  # KB: 100,000 with parts of a million characters, 430,000 with all at once


def test_threads_with_different_lengths_do_not_mix(small: Peers) -> None:
    def lengths(max_length: int) -> set[int]:
        batches = [small.ours.encode_batch(["a " * 99] * 9, max_length=max_length) for _ in range(20)]
        return {len(encoding.input_ids) for batch in batches for encoding in batch}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lengths, range(10, 42))) == [{length} for length in range(10, 42)]


def test_ids_and_tokens(small: Peers) -> None:
    ours = small.ours
    assert (ours.unk_id, ours.sep_id, ours.pad_id, ours.cls_id, ours.mask_id) == (0, 2, 3, 4, 6)
    assert ours.special_ids == {0, 2, 3, 4, 6}
    assert ours.vocab_size == len(_SMALL)
    assert [ours.id_to_token(index) for index in range(len(_SMALL))] == _SMALL
    assert [ours.token_to_id(token) for token in _SMALL] == list(range(len(_SMALL)))
    assert ours.token_to_id("absent") is None
    assert ours.id_to_token(len(_SMALL)) is None
    assert ours.id_to_token(-1) is None


def test_copies_by_pickle_are_equal(small: Peers) -> None:
    copy = pickle.loads(pickle.dumps(small.ours))
    assert copy.encode("Unbelievable film", max_length=4) == small.ours.encode("Unbelievable film", max_length=4)


# --- texts that are none ---


@pytest.mark.parametrize(
    ("texts", "pairs", "message"),
    [
        (["fine", "bad \ud800"], None, "texts[1] holds the lone surrogate U+D800 at character 4"),
        (["fine"], ["\udfff"], "pairs[0] holds the lone surrogate U+DFFF at character 0"),
        (["fine", None], None, "texts[1] is NoneType, not a string"),
        ([None], ["fine"], "texts[0] is NoneType, not a string"),
        (["fine", "fine"], [None, float("nan")], "pairs[1] is float, not a string"),
        (["fine", "fine"], ["fine"], "2 texts but 1 pairs"),
    ],
)
@pytest.mark.parametrize("offsets", [True, False])
def test_bad_texts_are_named(small: Peers, texts: Any, pairs: Any, message: str, offsets: bool) -> None:
    with pytest.raises(InputError) as caught:
        small.ours.encode_batch(texts, pairs, offsets=offsets)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("pair", "least"), [(None, 2), ("b", 3)])
def test_max_length_too_small_for_the_special_tokens(small: Peers, pair: str | None, least: int) -> None:
    for max_length in range(-1, least):
        with pytest.raises(InputError, match=f"max_length {max_length} .* use at least {least}"):
            small.ours.encode("a", pair, max_length=max_length)
    assert len(small.ours.encode("a", pair, max_length=least).input_ids) == least


# --- loading and saving ---


def _tokenizer_json(small: Peers, **changes: Any) -> dict[str, Any]:
    """What transformers writes for the small vocabulary; ``model={"type": None}`` changes fields of a part."""
    content: dict[str, Any] = json.loads(small.theirs.backend_tokenizer.to_str())
    for part, fields in changes.items():
        content[part] = content[part] | fields if isinstance(fields, dict) and content[part] else fields
    return content


def _without_model_type(content: dict[str, Any]) -> dict[str, Any]:
    del content["model"]["type"]
    return content


_TEXT = "Unbelievable café [MASK], 電影!"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_vocabulary_file_of_any_system(small: Peers, tmp_path: Path, end: str, mark: str, last: bool) -> None:
    path = tmp_path / "words"
    path.write_bytes((mark + end.join(_SMALL) + (end if last else "")).encode())
    ours = Tokenizer.load(path)
    assert [ours.id_to_token(index) for index in range(ours.vocab_size)] == _SMALL
    assert ours.encode(_TEXT) == small.ours.encode(_TEXT)


def test_odd_line_separators_belong_to_tokens(tmp_path: Path) -> None:
    tokens = [*SPECIAL_TOKENS, "\u2028", "\x85", "\x0b", "a\rb"]
    (tmp_path / "vocab.txt").write_bytes("\n".join(tokens).encode())
    ours = Tokenizer.load(tmp_path)
    assert [ours.id_to_token(index) for index in range(ours.vocab_size)] == tokens


def test_tokenizer_json_of_any_age(small: Peers, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for content in (_tokenizer_json(small), _without_model_type(_tokenizer_json(small))):
        path.write_text(json.dumps(content), encoding="utf-8")
        assert Tokenizer.load(str(path)).encode(_TEXT, offsets=True) == small.ours.encode(_TEXT, offsets=True)


def test_stored_padding_and_truncation_do_not_leak(small: Peers, tmp_path: Path) -> None:
    backend = BertTokenizerFast(vocab=str(small.path)).backend_tokenizer
    backend.enable_padding(length=40)
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    assert ours.encode(_TEXT) == small.ours.encode(_TEXT)
    ours.save(tmp_path / "saved")
    content = json.loads((tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["padding"] is None
    assert content["truncation"] is None


def test_folder_prefers_tokenizer_json(small: Peers, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(_tokenizer_json(small)), encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "other"]), encoding="utf-8")
    assert Tokenizer.load(tmp_path).vocab_size == len(_SMALL)


@pytest.mark.parametrize("change", [None, "do_lower_case", "strip_accents", "tokenize_chinese_chars"])
@pytest.mark.parametrize("with_json", [True, False])
def test_settings_of_a_folder_are_those_of_transformers(
    small: Peers, tmp_path: Path, change: str | None, with_json: bool
) -> None:
    (tmp_path / "vocab.txt").write_bytes(small.path.read_bytes())
    if with_json:
        (tmp_path / "tokenizer.json").write_text(json.dumps(_tokenizer_json(small)), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({change: False} if change else {}), encoding="utf-8")
    theirs = BertTokenizerFast.from_pretrained(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    loaded.save(tmp_path / "saved")
    for ours in (loaded, Tokenizer.load(tmp_path / "saved")):
        for text in ("Hello HELLO hello", "é café e\u0301", "電影 the電影"):
            assert_equal_to_theirs(Peers(tmp_path, ours, theirs), text, None, 64)
    # Any of the settings shows: the test would pass without them otherwise.
    text = "Hello é the電影"
    assert (loaded.encode(text) == small.ours.encode(text)) == (change is None)


def test_cased_vocabulary() -> None:
    tokens = [*SPECIAL_TOKENS, "Film", "film"]
    assert Tokenizer.from_vocab(tokens, lowercase=False).encode("Film film").input_ids == [2, 5, 6, 3]
    assert Tokenizer.from_vocab(tokens).encode("Film film").input_ids == [2, 6, 6, 3]


def test_saved_folder_loads_here_and_in_transformers(peers: Peers, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    peers.ours.save(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert (folder / "vocab.txt").read_bytes() == peers.path.read_bytes()
    theirs = AutoTokenizer.from_pretrained(folder)
    assert isinstance(theirs, BertTokenizerFast)
    assert theirs.model_max_length == 512
    assert theirs.pad_token_id == peers.ours.pad_id
    for source in (folder, folder / "tokenizer.json", folder / "vocab.txt"):
        again = Peers(folder, Tokenizer.load(source), theirs)
        for name in ("special tokens", "combining accents", "emoji", "chinese, japanese, korean"):
            assert_equal_to_theirs(again, _HOSTILE[name], _TEXT, 40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocab.txt: the file is empty"),
        (b"[PAD]\n[UNK]\nfilm\n", "vocab.txt: no BERT vocabulary, it lacks [CLS], [SEP], [MASK]"),
        (b"[PAD]\nfilm\nthe\nfilm\n", "vocab.txt:4: token 'film' is already on line 2"),
        (b"[PAD]\n\nfilm\n", "vocab.txt:2: '' is no token"),
        (b"[PAD]\nfilm\ncaf\xe9\n", "vocab.txt:3: byte 4 of the line (0xe9) is not UTF-8"),
        (b"\x80\x02ctorch\n", "vocab.txt:1: byte 1 of the line (0x80) is not UTF-8"),
        ("[PAD]\n".encode("utf-16"), "vocab.txt:1: holds a NUL byte, so it is not text in UTF-8"),
        (b"\x00\x01\x02\x00", "vocab.txt:1: holds a NUL byte"),
        (b"[PAD]\n\xed\xa0\x80\n", "vocab.txt:2: byte 1 of the line (0xed) is not UTF-8"),
    ],
)
def test_bad_vocabulary_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    for source in (path, tmp_path):
        with pytest.raises(InputError) as caught:
            Tokenizer.load(source)
        assert message in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


_BAD_JSON: dict[str, tuple[Callable[[Peers], Any], str]] = {
    "BPE": (lambda small: _tokenizer_json(small, model={"type": "BPE"}), "model: type is 'BPE', not 'WordPiece'"),
    "old BPE": (
        lambda small: _without_model_type(_tokenizer_json(small, model={"continuing_subword_prefix": None})),
        "continuing_subword_prefix is None",
    ),
    "unknown token": (lambda small: _tokenizer_json(small, model={"unk_token": "<unk>"}), "unk_token is '<unk>'"),
    "no normalizer": (lambda small: _tokenizer_json(small, normalizer=None), "normalizer: type is None"),
    "whitespace": (lambda small: _tokenizer_json(small, pre_tokenizer={"type": "Whitespace"}), "is 'Whitespace'"),
    "gap": (lambda small: _tokenizer_json(small, model={"vocab": {"[PAD]": 0, "a": 2}}), "without gaps"),
    "ids of text": (lambda small: _tokenizer_json(small, model={"vocab": {"[PAD]": "0", "a": []}}), "without gaps"),
    "list of tokens": (lambda small: _tokenizer_json(small, model={"vocab": ["[PAD]", "a"]}), "without gaps"),
    "few tokens": (lambda small: _tokenizer_json(small, model={"vocab": {"[PAD]": 0, "a": 1}}), "it lacks [UNK]"),
    "empty vocabulary": (lambda small: _tokenizer_json(small, model={"vocab": {}}), "vocabulary is empty"),
    "added": (lambda small: _tokenizer_json(small, added_tokens=[{"id": 999, "content": "<e>"}]), "added token '<e>'"),
    "case": (lambda small: _tokenizer_json(small, normalizer={"lowercase": "yes"}), "lowercase must be true or false"),
    "list": (lambda _: [1, 2], "no BERT WordPiece tokenizer"),
    "surrogate": (
        lambda small: _tokenizer_json(small, model={"vocab": {"[PAD]": 0, "\ud800": 1}}),
        "the token holds the lone surrogate U+D800",
    ),
}


@pytest.mark.parametrize("name", _BAD_JSON)
def test_foreign_tokenizer_json_is_refused(small: Peers, tmp_path: Path, name: str) -> None:
    make, message = _BAD_JSON[name]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(make(small)), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Tokenizer.load(tmp_path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_json_is_refused(small: Peers, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model":\n {', encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer\.json:2: not valid JSON"):
        Tokenizer.load(tmp_path)
    small.ours.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": "no"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer_config\.json: do_lower_case must be true or false"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "the vocabulary is empty"),
        (["[PAD]", "a"], "lacks [UNK], [CLS], [SEP], [MASK]"),
        ([*SPECIAL_TOKENS, "a", "a"], "vocabulary:7: token 'a' is already on line 6"),
        ([*SPECIAL_TOKENS, "a\nb"], "vocabulary:6: 'a\\nb' is no token"),
        ([*SPECIAL_TOKENS, "a\r"], "vocabulary:6: 'a\\r' is no token"),
        ([*SPECIAL_TOKENS, 7], "vocabulary:6: the token is int"),
    ],
)
def test_bad_vocabularies_are_refused(tokens: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Tokenizer.from_vocab(tokens)
    assert message in str(caught.value)


# --- the hub ---


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A hub with the files of one folder; "online" switches it off, "asked" lists the requests."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    folder = tmp_path / "repository"
    folder.mkdir()
    state: dict[str, Any] = {"folder": folder, "online": True, "asked": []}

    def download(repo_id: str, filename: str, *, local_files_only: bool = False) -> str:
        state["asked"].append((repo_id, filename))
        if repo_id == "no--such":
            raise HFValidationError("Cannot have -- or .. in repo_id:\n'no--such'.")
        if repo_id != "someone/model" or not state["online"]:
            raise LocalEntryNotFoundError("An error happened.\nPlease check your connection")
        assert not local_files_only
        if not (folder / filename).is_file():
            raise EntryNotFoundError("404")
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    return state


def test_hub_repository(small: Peers, hub: dict[str, Any]) -> None:
    (hub["folder"] / "vocab.txt").write_bytes(small.path.read_bytes())
    assert Tokenizer.load("someone/model").encode(_TEXT) == small.ours.encode(_TEXT)
    small.ours.save(hub["folder"])
    hub["asked"].clear()
    assert Tokenizer.load("someone/model").encode(_TEXT) == small.ours.encode(_TEXT)
    assert [name for _, name in hub["asked"]] == ["tokenizer.json", "tokenizer_config.json"]


def test_hub_repository_without_a_tokenizer(hub: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="someone/model: holds neither"):
        Tokenizer.load("someone/model")


@pytest.mark.parametrize("source", ["someone/model", "mistyped-folder", Path("runs/mistyped")])
def test_hub_out_of_reach(hub: dict[str, Any], source: str | Path) -> None:
    hub["online"] = False
    with pytest.raises(InputError) as caught:
        Tokenizer.load(source)
    assert str(caught.value) == (
        f"{source}: no such file or folder, and the hub cannot be reached; check path or network"
    )


def test_hub_refusal_is_one_line(hub: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"no--such: no such file or folder, and no model on the hub \(Cannot have"):
        Tokenizer.load("no--such")


@pytest.mark.parametrize(
    "source", ["./nothing", "../nothing", "/nothing", "a/b/c", "vocab.txt", "runs/tokenizer.json", "a b", "~/x", ""]
)
def test_paths_are_never_asked_of_the_hub(hub: dict[str, Any], source: str) -> None:
    with pytest.raises(InputError, match=r"no such file or folder|holds neither"):
        Tokenizer.load(source)
    assert hub["asked"] == []


def test_existing_folder_is_never_asked_of_the_hub(small: Peers, hub: dict[str, Any]) -> None:
    small.ours.save("someone/model")
    assert Tokenizer.load("someone/model").vocab_size == len(_SMALL)
    assert hub["asked"] == []


# --- learning ---


def test_learned_vocabulary_by_hand() -> None:
    # ab 3 times; then "ca" and "##ab" would meet twice each, and c##a, which has the smaller ids, is merged first.
    texts = ["AB ab, áb", "cab Cab x"]
    expected = [*SPECIAL_TOKENS, *",abcx", "##a", "##b", "##c", "##x", "ab", "ca", "cab"]
    for again in (texts, iter(texts)):
        ours = Tokenizer.learn(again, vocab_size=99)
        assert [ours.id_to_token(index) for index in range(ours.vocab_size)] == expected
    assert Tokenizer.learn(texts, vocab_size=15).id_to_token(14) == "ab"
    assert Tokenizer.learn(texts, vocab_size=15).vocab_size == 15
    assert Tokenizer.learn(texts, vocab_size=99, min_frequency=3).vocab_size == 15


def test_learned_vocabulary_reads_its_own_corpus(documents: list[str]) -> None:
    ours = Tokenizer.learn(documents[:10], vocab_size=2000)
    assert ours.vocab_size == 2000
    encodings = ours.encode_batch(documents[:10], max_length=10**9)
    assert not any(ours.unk_id in encoding.input_ids for encoding in encodings)
    # Text unseen: a learned vocabulary needs far fewer tokens than one of letters would.
    letters = sum(len(text) for text in documents[10:20])
    assert sum(len(each.input_ids) for each in ours.encode_batch(documents[10:20], max_length=10**9)) < 0.4 * letters


def test_commonest_characters_are_kept_and_chinese_ones_stand_alone() -> None:
    rare, common = [chr(0x4E00 + number) for number in range(300)], [chr(0x6000 + number) for number in range(900)]
    ours = Tokenizer.learn(["".join(rare), "".join(common) * 2, "film"], vocab_size=3000)
    kept = {token for index in range(ours.vocab_size) if (token := ours.id_to_token(index)) and len(token) == 1}
    assert len(kept) == 1000
    assert set(common) <= kept
    assert not any(ours.token_to_id(f"##{character}") for character in common)


_LEARN = """
import hashlib, random, sys
from squeezebert.tokenizer import Tokenizer
chosen = random.Random(1)
words = ["".join(chosen.choices("abcdefghijklmnopqrstuvwxyzäß", k=chosen.randint(1, 9))) for _ in range(3000)]
ours = Tokenizer.learn([" ".join(chosen.choices(words, k=50)) for _ in range(400)], vocab_size=1500)
print(hashlib.sha256("\\n".join(map(ours.id_to_token, range(ours.vocab_size))).encode()).hexdigest())
print(sorted({"torch", "transformers", "huggingface_hub"} & set(sys.modules)))
"""


def test_learning_gives_the_same_in_every_process_and_importing_stays_light() -> None:
    # Random words meet equally often all the time, so any order left to chance would show.
    runs = [
        subprocess.run([sys.executable, "-c", _LEARN], capture_output=True, text=True, check=True).stdout.split("\n")
        for _ in range(3)
    ]
    assert len(runs[0][0]) == len(hashlib.sha256().hexdigest())
    assert runs[0] == runs[1] == runs[2]
    assert runs[0][1] == "[]"


def test_learning_refuses_what_it_cannot_use() -> None:
    for texts in ([], ["", " \n\u200b"]):
        with pytest.raises(InputError, match="no text to learn"):
            Tokenizer.learn(texts)
    with pytest.raises(InputError, match=r"vocab_size 8 cannot hold .* 2 characters .* at least 9"):
        Tokenizer.learn(["ab"], vocab_size=8)
    assert Tokenizer.learn(["ab"], vocab_size=9).vocab_size == 9
    with pytest.raises(InputError, match="min_frequency must be at least 1, not 0"):
        Tokenizer.learn(["ab"], min_frequency=0)
    with pytest.raises(InputError, match=r"texts\[1\] holds the lone surrogate U\+DC80"):
        Tokenizer.learn(["ab", "\udc80"])
