from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from squeezebert.data import shards
from squeezebert.data.shards import Corpus, CorpusWriter, Split, summarize_lengths
from squeezebert.errors import InputError

Documents = list[list[list[int]]]


def write(
    folder: Path, documents: dict[Split, Documents], *, vocab_size: int = 100, shard_tokens: int = 1 << 20
) -> None:
    folder.mkdir(parents=True)
    with CorpusWriter(folder, vocab_size, shard_tokens=shard_tokens) as writer:
        for split, members in documents.items():
            for sentences in members:
                writer.add(split, [id for sentence in sentences for id in sentence], [len(s) for s in sentences])
        writer.finish(vocabulary={"size": vocab_size, "sha256": ""})


def random_documents(count: int, *, vocab_size: int = 100) -> Documents:
    draw = np.random.default_rng(0)
    return [
        [draw.integers(0, vocab_size, draw.integers(1, 9)).tolist() for _ in range(draw.integers(1, 6))]
        for _ in range(count)
    ]


def as_lists(corpus: Corpus) -> Documents:
    return [[sentence.tolist() for sentence in corpus.document(i)] for i in range(corpus.n_documents)]


@pytest.mark.parametrize("shard_tokens", [1, 50, 1 << 20])
def test_documents_come_back_as_written_over_any_number_of_shards(tmp_path: Path, shard_tokens: int) -> None:
    train, held_out = random_documents(40), random_documents(3)
    write(tmp_path / "c", {"train": train, "held_out": held_out}, shard_tokens=shard_tokens)
    corpus = Corpus.open(tmp_path / "c", verify=True)
    assert as_lists(corpus) == train
    assert as_lists(Corpus.open(tmp_path / "c", "held_out")) == held_out
    sentences = [sentence for document in train for sentence in document]
    flat = [id for sentence in sentences for id in sentence]
    assert (corpus.n_documents, corpus.n_sentences, corpus.n_tokens) == (40, len(sentences), len(flat))
    assert [corpus.sentence(i).tolist() for i in range(corpus.n_sentences)] == sentences
    for start, stop in [(0, len(flat)), (3, 120), (49, 51), (7, 7), (len(flat) - 1, len(flat) + 5)]:
        assert corpus.tokens[start:stop].tolist() == flat[start:stop]
    shards = sorted(path.name for path in (tmp_path / "c").glob("train-*.tokens.bin"))
    assert len(shards) == {1: 40, 1 << 20: 1}.get(shard_tokens, len(shards))
    if shard_tokens == 50:
        assert 1 < len(shards) < 40


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_ids_take_two_bytes_where_the_vocabulary_allows(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    write(tmp_path / "c", {"train": [[[0, vocab_size - 1]]]}, vocab_size=vocab_size)
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.tokens.dtype == dtype
    assert corpus.tokens[:].tolist() == [0, vocab_size - 1]
    assert corpus.vocab_size == vocab_size


def test_writer_refuses_ids_and_lengths_that_cannot_be(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path, 100) as writer:
        with pytest.raises(ValueError, match=r"0\.\.99"):
            writer.add("train", [1, 100], [2])
        with pytest.raises(ValueError, match="positive and add up"):
            writer.add("train", [1, 2], [2, 0])
        with pytest.raises(ValueError, match="positive and add up"):
            writer.add("train", [1, 2], [1])


def test_an_empty_split_opens(tmp_path: Path) -> None:
    write(tmp_path / "c", {"train": [[[1]]]})
    corpus = Corpus.open(tmp_path / "c", "held_out", verify=True)
    assert (corpus.n_documents, corpus.n_sentences, corpus.n_tokens, len(corpus.tokens[:])) == (0, 0, 0, 0)


def test_views_are_read_only_and_pickling_maps_again(tmp_path: Path) -> None:
    write(tmp_path / "c", {"train": random_documents(50)})
    corpus = Corpus.open(tmp_path / "c")
    with pytest.raises(ValueError, match="read-only"):
        corpus.tokens[0:1][0] = 5
    pickled = pickle.dumps(corpus)
    assert len(pickled) < 500
    assert as_lists(pickle.loads(pickled)) == as_lists(corpus)


def test_manifest_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    write(tmp_path / "c", {"train": random_documents(5)}, shard_tokens=20)
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    others = {path.name: path for path in (tmp_path / "c").iterdir() if path.name != "manifest.json"}
    assert set(manifest["files"]) == set(others)
    for name, path in others.items():
        data = path.read_bytes()
        assert manifest["files"][name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_damage_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "c", {"train": random_documents(5)})
    shard = tmp_path / "c" / "train-00000.tokens.bin"
    data = shard.read_bytes()
    shard.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    Corpus.open(tmp_path / "c")  # sizes agree, hashes were not asked for
    with pytest.raises(InputError, match=r"train-00000\.tokens\.bin: SHA-256 differs"):
        Corpus.open(tmp_path / "c", verify=True)
    shard.write_bytes(data[:-2])
    with pytest.raises(InputError, match=rf"train-00000\.tokens\.bin: {len(data) - 2} bytes, manifest"):
        Corpus.open(tmp_path / "c")
    shard.unlink()
    with pytest.raises(InputError, match=r"train-00000\.tokens\.bin: missing"):
        Corpus.open(tmp_path / "c")


def test_what_is_no_corpus_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        Corpus.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match="format 1"):
        Corpus.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="damaged"):
        Corpus.open(tmp_path)
    write(tmp_path / "c", {"train": [[[1]]]})
    with pytest.raises(InputError, match="'test' is unknown; use one of train, held_out"):
        Corpus.open(tmp_path / "c", "test")  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_lengths_equal_those_numpy_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(shards, "_BLOCK", block)
    documents = random_documents(60)
    write(tmp_path / "c", {"train": documents})
    corpus = Corpus.open(tmp_path / "c")
    wanted = {
        "sentences": ([len(s) for d in documents for s in d], corpus.sentence_offsets, None),
        "documents": ([len(d) for d in documents], corpus.document_offsets, None),
        "tokens": ([sum(map(len, d)) for d in documents], corpus.document_offsets, corpus.sentence_offsets),
    }
    for lengths, offsets, inner in wanted.values():
        found = summarize_lengths(offsets, inner)
        assert found.mean == pytest.approx(np.mean(lengths))
        for share, length in found.quantiles.items():
            assert length == np.quantile(lengths, share, method="inverted_cdf")
    assert summarize_lengths(np.zeros(1, np.int64)).quantiles[1.0] == 0
