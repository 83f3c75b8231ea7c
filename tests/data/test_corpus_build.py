from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squeezebert.data import corpus_build
from squeezebert.data.corpus import Settings, find_sources, read_documents
from squeezebert.data.corpus_build import Encoder, Progress, build_corpus
from squeezebert.data.shards import Corpus, Manifest
from squeezebert.errors import InputError
from squeezebert.tokenizer import SPECIAL_TOKENS, Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
NOUNS = ["river", "house", "valley", "fisher", "boat", "winter", "letter", "garden", "window", "doctor"]
VERBS = ["sees", "leaves", "finds", "paints", "forgets", "remembers", "follows"]
CHARACTERS = ".,;:!?'\"()[]-—“”" + LETTERS
TOKENS = [*SPECIAL_TOKENS, *CHARACTERS, *(f"##{letter}" for letter in LETTERS), *NOUNS, *VERBS, "the"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    Tokenizer.from_vocab(TOKENS).save(folder)
    return folder


def story(number: int) -> list[list[str]]:
    """Paragraphs of sentences; different numbers give different stories."""
    draw = np.random.default_rng(number)

    def sentence() -> str:
        return f"The {draw.choice(NOUNS)} {draw.choice(VERBS)} the {draw.choice(NOUNS)}."

    paragraphs = [[sentence() for _ in range(draw.integers(1, 5))] for _ in range(draw.integers(1, 5))]
    paragraphs[0][0] = f"Number {number} is the story of Dr. Hale and the {draw.choice(NOUNS)}."
    return paragraphs


def text(number: int) -> str:
    return "\n\n".join(" ".join(paragraph) for paragraph in story(number))


def write_stories(path: Path, numbers: Sequence[int]) -> Path:
    path.write_text("".join(json.dumps({"text": text(number)}) + "\n" for number in numbers))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def as_characters(folder: Path) -> list[list[str]]:
    """The sentences of all documents, decoded, without blanks."""
    tokenizer = Tokenizer.load(folder)
    return [
        ["".join(tokenizer.decode(ids.tolist()).split()) for ids in corpus.document(index)]
        for corpus in (Corpus.open(folder, "train", verify=True), Corpus.open(folder, "held_out"))
        for index in range(corpus.n_documents)
    ]


def expected(number: int) -> list[str]:
    return ["".join(sentence.lower().split()) for paragraph in story(number) for sentence in paragraph]


def test_documents_and_sentences_come_back_exactly(tmp_path: Path, vocabulary: Path) -> None:
    source = write_stories(tmp_path / "a.jsonl", range(60))
    manifest = build_corpus([source], tmp_path / "c", vocabulary, Settings(held_out=0.2), shard_tokens=500)
    found = as_characters(tmp_path / "c")
    assert sorted(found) == sorted(expected(number) for number in range(60))
    train = manifest.splits["train"].documents
    assert 0 < train < 60
    places = [[expected(number) for number in range(60)].index(document) for document in found]
    assert places[:train] == sorted(places[:train]), "in the order of the input"
    assert manifest.splits["train"].tokens > 1000
    assert len(list((tmp_path / "c").glob("train-*.tokens.bin"))) > 1
    assert not list(tmp_path.glob("*.partial"))


def test_manifest_says_what_went_in(tmp_path: Path, vocabulary: Path) -> None:
    source = write_stories(tmp_path / "a.jsonl", range(5))
    build_corpus([source], tmp_path / "c", vocabulary, Settings(held_out=0))
    manifest = Manifest.read(tmp_path / "c")
    assert manifest.inputs[0]["name"] == "a.jsonl"
    assert manifest.inputs[0]["bytes"] == source.stat().st_size
    assert manifest.vocabulary == {
        "size": len(TOKENS),
        "sha256": manifest.files["vocab.txt"]["sha256"],
    }
    assert manifest.settings["held_out"] == 0
    assert manifest.settings["versions"]["sentencex"]
    assert Tokenizer.load(tmp_path / "c").vocab_size == len(TOKENS)


def test_filters_count_what_they_leave_out(tmp_path: Path, vocabulary: Path) -> None:
    german = "Der Fluss fließt langsam durch das Tal, und am Ufer stehen alte Häuser. Niemand wohnt mehr dort. Schade."
    texts = [text(0), text(1), text(0).upper().replace("\n\n", " \n"), german, " \u200b ", "", text(1)]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    manifest = build_corpus([source], tmp_path / "on", vocabulary)
    assert manifest.dropped == {"empty": 2, "language": 1, "duplicate": 2}
    assert sum(split.documents for split in manifest.splits.values()) == 2
    off = Settings(language_filter=False, duplicate_filter=False, clean=False)
    manifest = build_corpus([source], tmp_path / "off", vocabulary, off)
    assert manifest.dropped == {"empty": 2, "language": 0, "duplicate": 0}
    assert sum(split.documents for split in manifest.splits.values()) == 5


def test_duplicates_are_found_across_chunks_and_passes(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_build, "CHUNK_CHARACTERS", 1000)
    monkeypatch.setattr(corpus_build, "_HASHES_AT_ONCE", 10)
    numbers = [7, 3, 7, *range(40), 3, 39]
    source = write_stories(tmp_path / "a.jsonl", numbers)
    manifest = build_corpus([source], tmp_path / "c", vocabulary, Settings(held_out=0))
    assert manifest.dropped["duplicate"] == 5
    assert as_characters(tmp_path / "c") == [expected(number) for number in dict.fromkeys(numbers)], "the first stays"


def test_share_held_out_goes_by_content(tmp_path: Path, vocabulary: Path) -> None:
    def held_out(name: str, numbers: Sequence[int]) -> set[str]:
        build_corpus([write_stories(tmp_path / f"{name}.jsonl", numbers)], tmp_path / name, vocabulary)
        corpus, tokenizer = Corpus.open(tmp_path / name, "held_out"), Tokenizer.load(vocabulary)
        return {tokenizer.decode(corpus.sentence(int(first)).tolist()) for first in corpus.document_offsets[:-1]}

    all_of_them = held_out("all", range(2000))
    # Three standard deviations of a share of 3% in 2,000 draws are 1.1%.
    assert 0.019 < len(all_of_them) / 2000 < 0.041
    some = held_out("some", range(1500, 500, -1))
    assert some == {first for first in all_of_them if 500 < int(first.split()[1]) <= 1500}


def test_same_bytes_for_one_process_and_two(tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_build, "CHUNK_CHARACTERS", 5000)
    source = write_stories(tmp_path / "a.jsonl", [*range(150), 3])
    reports: list[Progress] = []
    build_corpus([source], tmp_path / "one", vocabulary, report=reports.append)
    assert len(reports) > 5, "several chunks"
    assert reports[-1].bytes_done == sum(len(text(number)) for number in [*range(150), 3])
    build_corpus([source], tmp_path / "two", vocabulary, processes=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


KILLED = """
    import os, signal, sys
    from squeezebert.data import corpus_build, shards
    corpus_build.CHUNK_CHARACTERS = 5000
    source, output, vocabulary, processes, moment = sys.argv[1:]

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    reports = []
    def report(progress):
        reports.append(progress)
        if moment == "chunks" and len(reports) == 6:
            kill()

    if moment == "shards":
        add, calls = shards.CorpusWriter.add, []
        def counted(self, *args):
            calls.append(1)
            return kill() if len(calls) == 70 else add(self, *args)
        shards.CorpusWriter.add = counted
    if moment == "rename":
        remove = corpus_build.shutil.rmtree
        def removing(path, **options):
            return kill() if str(path).endswith("c.partial") else remove(path, **options)
        corpus_build.shutil.rmtree = removing
    corpus_build.build_corpus([source], output, vocabulary, processes=int(processes), report=report)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(("processes", "moment"), [(1, "chunks"), (2, "chunks"), (1, "shards"), (1, "rename")])
def test_killed_and_called_again_gives_the_same_bytes(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch, processes: int, moment: str
) -> None:
    source = write_stories(tmp_path / "a.jsonl", range(150))
    script = [sys.executable, "-c", textwrap.dedent(KILLED)]
    script += [str(source), str(tmp_path / "c"), str(vocabulary), str(processes), moment]
    # Also waits until every worker has closed its end of the pipes: none outlives its parent.
    killed = subprocess.run(script, capture_output=True, timeout=60, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "c").exists() == (moment == "rename")

    monkeypatch.setattr(corpus_build, "CHUNK_CHARACTERS", 5000)
    reports: list[Progress] = []
    build_corpus([source], tmp_path / "c", vocabulary, report=reports.append)
    if moment != "rename":
        assert 0 < reports[-1].bytes_kept <= reports[-1].bytes_done
        assert (reports[-1].bytes_kept == reports[-1].bytes_done) == (moment == "shards")
    build_corpus([source], tmp_path / "unbroken", vocabulary)
    assert content(tmp_path / "c") == content(tmp_path / "unbroken")
    assert not list(tmp_path.glob("*.partial"))


def test_nothing_is_lost_to_a_bad_line(tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_build, "CHUNK_CHARACTERS", 1000)
    source = write_stories(tmp_path / "a.jsonl", range(30))
    good = source.read_text()
    source.write_text(good + '{"text": oops}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:31: not valid JSON"):
        build_corpus([source], tmp_path / "c", vocabulary)
    assert not (tmp_path / "c").exists()
    source.write_text(good)
    reports: list[Progress] = []
    build_corpus([source], tmp_path / "c", vocabulary, report=reports.append)
    assert reports[-1].bytes_kept > 0.9 * reports[-1].bytes_done
    build_corpus([source], tmp_path / "unbroken", vocabulary)
    assert content(tmp_path / "c") == content(tmp_path / "unbroken")


def test_changed_text_or_settings_are_not_taken_from_an_earlier_build(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_build, "CHUNK_CHARACTERS", 1000)

    def stopped(numbers: Sequence[int], settings: Settings | None = None) -> Progress:
        reports: list[Progress] = []

        def fail(*_: Any) -> None:
            raise KeyboardInterrupt

        source = write_stories(tmp_path / "a.jsonl", numbers)
        with monkeypatch.context() as patch:
            patch.setattr(corpus_build, "_assemble", fail)
            with pytest.raises(KeyboardInterrupt):
                build_corpus([source], tmp_path / "c", vocabulary, settings, report=reports.append)
        return reports[-1]

    assert stopped(range(30)).bytes_kept == 0
    assert stopped(range(30)).bytes_kept == sum(len(text(number)) for number in range(30))
    assert stopped(range(30), Settings(clean=False)).bytes_kept == 0
    assert 0 < stopped([*range(29), 99]).bytes_kept < sum(len(text(number)) for number in range(29))


def test_a_complete_output_is_left_alone_and_another_is_refused(tmp_path: Path, vocabulary: Path) -> None:
    source = write_stories(tmp_path / "a.jsonl", range(5))
    build_corpus([source], tmp_path / "c", vocabulary)
    before = content(tmp_path / "c")
    reports: list[Progress] = []
    build_corpus([source], tmp_path / "c", vocabulary, report=reports.append)
    assert not reports
    with pytest.raises(InputError, match="holds a corpus of other settings"):
        build_corpus([source], tmp_path / "c", vocabulary, Settings(clean=False))
    write_stories(source, range(6))
    with pytest.raises(InputError, match="holds a corpus of other inputs"):
        build_corpus([source], tmp_path / "c", vocabulary)
    assert content(tmp_path / "c") == before
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="holds other files"):
        build_corpus([source], tmp_path / "d", vocabulary)


def test_half_a_surrogate_pair_is_named(tmp_path: Path, vocabulary: Path) -> None:
    (tmp_path / "wiki_00").write_text('{"title": "A", "text": "fine"}\n{"title": "B", "text": "\\ud800"}\n')
    with pytest.raises(InputError, match="wiki_00: document 2 holds half a surrogate pair"):
        build_corpus([tmp_path / "wiki_00"], tmp_path / "c", vocabulary)


def test_encoder_equals_the_tokenizer_on_the_shared_corpus(shared_data: Path) -> None:
    tokenizer = Tokenizer.load(shared_data / "vocab" / "bert-base-uncased-vocab.txt")
    settings = Settings(held_out=0)
    source = find_sources([shared_data / "corpus" / "wiki" / "validation.jsonl.zst"])[0]
    texts = [text for text, _ in zip(read_documents(source, settings), range(20), strict=False)]
    lines = [line for text in texts for line in text.split("\n") if line]
    encoder = Encoder(tokenizer)
    ids, lengths = encoder.encode(lines)
    wanted = [encoding.input_ids[1:-1] for encoding in tokenizer.encode_batch(lines, max_length=1 << 30)]
    assert [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] == wanted
    assert len(ids) > 10_000


# Accents, case folding, marks without a base, Chinese, odd blanks, controls, half-written special tokens.
TEXT = st.text(st.sampled_from("ab z.“É̈ß Σς中文 \t\n\u200b\u00a0\u3000\x00\x1c[]MASKİﬁ😀"), max_size=30)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, max_size=8))
def test_encoder_equals_the_tokenizer_on_any_text(texts: list[str]) -> None:
    tokenizer = Tokenizer.from_vocab([*TOKENS, "ss", "中", "文", "σ", "##σ"])
    encoder = Encoder(tokenizer)
    texts = [text for text in texts if not any(name in text for name in SPECIAL_TOKENS)]
    wanted = [tokenizer.encode(text).input_ids[1:-1] for text in texts]
    for _ in range(2):  # from the tokenizer, then from memory
        ids, lengths = encoder.encode(texts)
        assert lengths.tolist() == [len(each) for each in wanted]
        assert ids.tolist() == [token for each in wanted for token in each]


def test_names_of_special_tokens_are_ordinary_text() -> None:
    tokenizer = Tokenizer.from_vocab(TOKENS)
    ids, _ = Encoder(tokenizer).encode(["the [MASK][SEP]river"])
    assert [tokenizer.id_to_token(index) for index in ids.tolist()] == [
        "the", "[", "m", "##a", "##s", "##k", "]", "[", "s", "##e", "##p", "]", "river",
    ]  # fmt: skip


def test_encoder_forgets_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_build, "_MOST_WORDS", 5)
    tokenizer = Tokenizer.from_vocab(TOKENS)
    encoder = Encoder(tokenizer)
    for sentence in ("the river sees the house", "the boat leaves", "a b c d e f g h", "the river sees the house"):
        ids, lengths = encoder.encode([sentence])
        assert ids.tolist() == tokenizer.encode(sentence).input_ids[1:-1]
        assert lengths.tolist() == [len(ids)]
