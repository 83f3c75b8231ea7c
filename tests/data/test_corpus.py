from __future__ import annotations

import gzip
import json
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from squeezebert.data import corpus
from squeezebert.data.corpus import Pipeline, Settings, Source, clean_lines, content_hash, find_sources, read_documents
from squeezebert.errors import InputError

FIRST = "The river flows slowly.\n\nOld houses stand on its bank."
SECOND = "Nobody lives there — not even the fishermen."


def read(*inputs: str | Path, **settings: Any) -> list[str]:
    return [text for source in find_sources(inputs) for text in read_documents(source, Settings(**settings))]


def json_lines(*texts: str, field: str = "text") -> bytes:
    return "".join(json.dumps({"id": 1, field: text}) + "\n" for text in texts).encode()


# --- Formats ---


@pytest.mark.parametrize("pack", [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)])
def test_json_lines_and_text_read_alike_however_packed(
    tmp_path: Path, pack: tuple[str, Callable[[bytes], bytes]]
) -> None:
    suffix, compress = pack
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(json_lines(FIRST, SECOND)))
    (tmp_path / f"b.txt{suffix}").write_bytes(compress(f"{SECOND}\n{SECOND}\n\n \nThird.\n".encode()))
    assert read(tmp_path / f"a.jsonl{suffix}") == [FIRST, SECOND]
    assert read(tmp_path / f"b.txt{suffix}") == [f"{SECOND}\n{SECOND}", "Third."]


def test_a_txt_file_may_be_one_document(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text(f"{FIRST}\n\n\n{SECOND}\n", "utf-8")
    (document,) = read(tmp_path / "b.txt", txt_documents="file")
    assert clean_lines(document) == [*FIRST.split("\n\n"), SECOND]


def test_text_without_an_end_is_cut_at_a_line_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LONGEST_DOCUMENT", 100)
    lines = [f"This is line number {number:03d}." for number in range(50)]
    (tmp_path / "b.txt").write_text("\n".join(lines))
    for boundary in ("blank-line", "file"):
        documents = read(tmp_path / "b.txt", txt_documents=boundary)
        assert len(documents) > 5
        assert max(map(len, documents)) <= 100 + len(lines[0])
        assert "\n".join(documents).split("\n") == lines


def test_parquet_and_the_name_of_the_text_field(tmp_path: Path) -> None:
    table = pyarrow.table({"title": ["x", "y"], "body": [FIRST, SECOND]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(json_lines(SECOND, field="body"))
    assert read(tmp_path / "a.parquet", tmp_path / "b.jsonl", text_field="body") == [FIRST, SECOND, SECOND]
    with pytest.raises(InputError, match=r"b\.jsonl:1: no field 'text'"):
        read(tmp_path / "b.jsonl")


def test_wikiextractor_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "AA").mkdir()
    (tmp_path / "AA" / "wiki_00").write_text(
        '<doc id="12" url="https://x/?curid=12" title="Salt &amp; "Pepper"">\nSalt &amp; "Pepper"\n\n'
        "Salt &lt;NaCl&gt; is white.\nPepper is not.\n\n</doc>\n"
        '<doc id="13" url="https://x/?curid=13" title="Tea">\nTea is a drink.\n</doc>\n'
    )
    record = {"id": "14", "title": "Oil", "text": "Oil\n\nOil floats on water &amp; vinegar."}
    (tmp_path / "AA" / "wiki_01").write_text(json.dumps(record) + "\n")
    documents = [clean_lines(text) for text in read(tmp_path)]
    assert documents == [
        ["Salt <NaCl> is white.", "Pepper is not."],
        ["Tea is a drink."],
        ["Oil floats on water & vinegar."],
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": 7}\n', r"a\.jsonl:2: column 'text' holds 7, not text"),
        ("a.txt", b"fine\nb\xff\n", r"a\.txt:2: byte 2 .* is not UTF-8"),
        ("wiki_00", b'<doc id="1" title="A">\nText.\n', r"wiki_00: ends within article 'A'"),
        ("wiki_00", b"Text.\n", r"wiki_00:1: neither <doc"),
        ("wiki_00", b'{"title": "A"}\n', r"wiki_00:1: not an article"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


# --- Sources ---


def test_folders_are_searched_in_a_fixed_order_and_nothing_is_read_twice(tmp_path: Path) -> None:
    for name in (
        "b/2.txt",
        "b/10.txt",
        "a.jsonl",
        "B.txt",
        "b.parquet",
        ".hidden.txt",
        "notes.md",
        "info.json",
        "e.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "e.txt").write_text("")
    names = [source.name for source in find_sources([tmp_path / "b" / "2.txt", tmp_path])]
    top = tmp_path.name
    assert names == ["2.txt", f"{top}/B.txt", f"{top}/a.jsonl", f"{top}/b/10.txt", f"{top}/b.parquet"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.txt", "no such file or folder"), ("notes.md", "does not tell the format"), ("empty", "no usable file")],
)
def test_an_input_that_cannot_be_used_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        find_sources([tmp_path / name])


@pytest.mark.parametrize("pack", [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)])
def test_text_bytes_are_forecast(tmp_path: Path, pack: tuple[str, Callable[[bytes], bytes]]) -> None:
    suffix, compress = pack
    data = json_lines(*(f"{FIRST} {number}" for number in range(2000)))
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(data))
    (source,) = find_sources([tmp_path / f"a.jsonl{suffix}"])
    assert source.text_bytes("text") == pytest.approx(len(data), rel=0.01)


def test_text_bytes_of_parquet_are_those_of_the_text_column(tmp_path: Path) -> None:
    texts = [f"{FIRST} {number}" for number in range(2000)]
    table = pyarrow.table({"text": texts, "other": [text * 3 for text in texts]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    (source,) = find_sources([tmp_path / "a.parquet"])
    assert source.text_bytes("text") == pytest.approx(sum(map(len, texts)), rel=0.1)


def fake_hub(monkeypatch: pytest.MonkeyPatch, rows: Callable[[], Iterator[dict[str, Any]]]) -> list[tuple[Any, ...]]:
    """Stand in for `datasets`; gives the list of the calls to come."""
    calls: list[tuple[Any, ...]] = []

    def load_dataset(name: str, configuration: str | None, **options: Any) -> Iterator[dict[str, Any]]:
        calls.append((name, configuration, options["revision"], options["streaming"]))
        return rows()

    module = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setattr(corpus, "require", lambda name, extra: module)
    return calls


def test_hub_data_sets_are_streamed_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    calls = fake_hub(monkeypatch, lambda: iter([{"text": FIRST}, {"text": SECOND}]))
    assert read("wikipedia") == read("wikimedia/wikipedia") == read("hub:some/set:part") == [FIRST, SECOND]
    assert calls == [
        ("wikimedia/wikipedia", "20231101.en", None, True),
        ("wikimedia/wikipedia", "20231101.en", None, True),
        ("some/set", "part", None, True),
    ]
    # A row of BookCorpus is a sentence; documents are made of many.
    assert read("bookcorpus") == [f"{FIRST}\n{SECOND}"]


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"text": FIRST}
        raise ConnectionError("no route\nto host")

    monkeypatch.chdir(tmp_path)
    fake_hub(monkeypatch, rows)
    with pytest.raises(
        InputError, match=r"^wikipedia: cannot be read from the hub \(no route to host\); check"
    ) as caught:
        read("wikipedia")
    assert "\n" not in str(caught.value)
    fake_hub(monkeypatch, lambda: iter([{"body": FIRST}]))
    with pytest.raises(InputError, match="no text in field 'text'; there are body"):
        read("wikipedia")


# --- Cleaning and filters ---


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\r\nb\rc\u2028d\x0be\x85f", ["a", "b", "c", "d", "e", "f"]),
        ("  a\t b\u00a0\u3000c  \n\n \u00a0\n d", ["a b c", "d"]),
        ("a\x00b\x07c\u200bd\ufeffe\u00adf\ufffdg", ["abcdefg"]),
        ("cafe\u0301", ["caf\u00e9"]),
        ("x² ﬁne “quotes” – ½", ["x² ﬁne “quotes” – ½"]),
        ("\u200b \n", []),
    ],
)
def test_cleaning(text: str, lines: list[str]) -> None:
    assert clean_lines(text) == lines


def test_cleaning_can_be_turned_off() -> None:
    pipeline = Pipeline(Settings(clean=False, language_filter=False))
    assert pipeline.lines("a\u200b  b\n\n c") == ["a\u200b  b", " c"]


def test_lines_of_fixed_width_are_joined_on_request() -> None:
    text = "It was a long\r\nand winding road.\r\n \r\nIt had\nno end."
    joined = Pipeline(Settings(join_lines=True, language_filter=False)).lines(text)
    assert joined == ["It was a long and winding road.", "It had no end."]
    assert len(Pipeline(Settings(language_filter=False)).lines(text)) == 4


def test_content_hash_ignores_case_and_blanks_only() -> None:
    assert content_hash(["A  b", "C"]) == content_hash(["a b c"]) != content_hash(["a b d"])
    assert len(content_hash([])) == 16


ENGLISH = (
    "The river flows slowly through the valley, and old houses stand on its bank. Nobody has lived there for years."
)
GERMAN = "Der Fluss fließt langsam durch das Tal, und am Ufer stehen alte Häuser. Seit Jahren wohnt dort niemand mehr."


def test_language_filter() -> None:
    english, german = Pipeline(Settings()), Pipeline(Settings(language="de"))
    assert (english.drop_reason([ENGLISH]), english.drop_reason([GERMAN])) == (None, "language")
    assert (german.drop_reason([ENGLISH]), german.drop_reason([GERMAN])) == ("language", None)
    assert english.drop_reason([GERMAN[:60]]) is None, "too short to tell"
    assert Pipeline(Settings(language_filter=False)).drop_reason([GERMAN]) is None
    assert english.drop_reason([]) == "empty"


def test_a_foreign_quotation_does_not_drop_a_document() -> None:
    assert Pipeline(Settings()).drop_reason([GERMAN, ENGLISH * 3, GERMAN, ENGLISH * 6]) is None


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"held_out must be at least 0 and below 1, not 1\.5"):
        Settings(held_out=1.5)
    with pytest.raises(InputError, match="language 'klingon' is unknown"):
        Pipeline(Settings(language="klingon"))


# --- Sentences ---


def labelled_boundaries() -> list[tuple[str, set[int], set[int]]]:
    """(paragraph, ends of sentences, ends that may or may not be), counted in characters that are not white space."""
    cases = []
    for line in (Path(__file__).parent / "sentence_boundaries.txt").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        ends: dict[str, set[int]] = {"|": set(), "¦": set()}
        count = 0
        for part in re.split(r" ([|¦]) ", line):
            if part in ends:
                ends[part].add(count)
            else:
                count += len("".join(part.split()))
        cases.append((re.sub(r" [|¦] ", " ", line), ends["|"], ends["¦"]))
    return cases


def test_sentence_boundaries_agree_with_hand_labels() -> None:
    pipeline = Pipeline(Settings(language_filter=False))
    right = wrong = missed = 0
    for text, required, optional in labelled_boundaries():
        sentences = list(pipeline.sentences([text]))
        assert "".join("".join(sentences).split()) == "".join(text.split()), "no character is lost"
        count, found = 0, set()
        for sentence in sentences[:-1]:
            count += len("".join(sentence.split()))
            found.add(count)
        right += len(found & required)
        wrong += len(found - required - optional)
        missed += len(required - found)
    assert right + missed > 60
    assert right / (right + wrong) > 0.85, "precision"
    assert right / (right + missed) > 0.9, "recall"


def test_a_line_ends_a_sentence_and_blank_ones_vanish() -> None:
    pipeline = Pipeline(Settings(language_filter=False))
    assert list(pipeline.sentences(["no full stop", "  ", "One. Two."])) == ["no full stop", "One.", "Two."]


def test_a_long_speech_is_split_inside_its_quotation_marks() -> None:
    pipeline = Pipeline(Settings(language_filter=False))
    words = [f"I have told you {number} times that it is so." for number in range(30)]
    assert list(pipeline.sentences([f"“{' '.join(words)}”"])) == [f"“{words[0]}", *words[1:-1], f"{words[-1]}”"]


def test_documents_of_the_shared_corpus_keep_every_character(shared_data: Path) -> None:
    source = Source("wiki", "table", shared_data / "corpus" / "wiki" / "validation.jsonl.zst")
    pipeline = Pipeline(Settings())
    documents = [text for text, _ in zip(read_documents(source, Settings()), range(30), strict=False)]
    for text in documents:
        lines = pipeline.lines(text)
        assert pipeline.drop_reason(lines) is None
        sentences = list(pipeline.sentences(lines))
        assert "".join("".join(sentences).split()) == "".join("".join(lines).split())
        assert len(sentences) > len(lines)
