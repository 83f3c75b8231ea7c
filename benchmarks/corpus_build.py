"""Corpus building: the whole build by number of processes, and its two costly steps beside other libraries.

    python benchmarks/corpus_build.py FILES... --vocab VOCAB --processes 1 2 --output FOLDER

Needs, beside the package's `train` extra: `pip install pysbd nltk blingfire syntok segtok`;
what is missing is left out.
Every build and every contender runs in a fresh process. MB are 10^6 bytes of raw text; CPU seconds count all processes
of a build. Splitters and tokenizers are given the paragraphs of the first `--sample` MB, one thread each.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness

CASES = Path(__file__).resolve().parents[1] / "tests" / "data" / "sentence_boundaries.txt"
SPLITTERS = [
    "sentencex + long quotations",
    "sentencex",
    "blingfire",
    "pysbd",
    "segtok",
    "syntok",
    "punkt",
    "punkt trained",
]
ENCODERS = ["Encoder (words remembered)", "Tokenizer.encode_batch", "transformers BertTokenizer"]
Split = Callable[[str], list[str]]


def paragraphs(inputs: list[str], megabytes: float) -> list[str]:
    from squeezebert.data.corpus import Settings, clean_lines, find_sources, read_documents

    found: list[str] = []
    sources = find_sources(inputs)
    for source in sources:
        size = 0
        for text in read_documents(source, Settings()):
            lines = clean_lines(text)
            found += lines
            size += sum(len(line.encode()) for line in lines)
            if size > megabytes * 1e6 / len(sources):
                break
    return found


def splitter(name: str, training_text: str) -> Split:
    if name.startswith("sentencex"):
        from squeezebert.data.corpus import Pipeline, Settings

        pipeline = Pipeline(Settings(language_filter=False))
        if "long" in name:
            return lambda text: list(pipeline.sentences([text]))
        import sentencex

        return lambda text: sentencex.segment("en", text)
    if name == "blingfire":
        import blingfire

        return lambda text: blingfire.text_to_sentences(text).split("\n")
    if name == "pysbd":
        import pysbd

        return pysbd.Segmenter(language="en", clean=False).segment
    if name == "segtok":
        from segtok.segmenter import split_single

        return lambda text: list(split_single(text))
    if name == "syntok":
        from syntok import segmenter

        def syntok(text: str) -> list[str]:
            sentences = [sentence for paragraph in segmenter.analyze(text) for sentence in paragraph]
            return ["".join(token.spacing + token.value for token in sentence) for sentence in sentences]

        return syntok
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    # NLTK's own model is a download apart; it may be trained on any text.
    return PunktSentenceTokenizer(training_text).tokenize if "trained" in name else PunktSentenceTokenizer().tokenize


def agreement(split: Split) -> dict[str, float]:
    """How far sentence ends agree with the hand-labelled ones; a paragraph's last end does not count."""
    right = wrong = missed = exact = paragraphs = 0
    for line in CASES.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        ends: dict[str, set[int]] = {"|": set(), "¦": set()}
        count = 0
        for part in re.split(r" ([|¦]) ", line):
            if part in ends:
                ends[part].add(count)
            else:
                count += len("".join(part.split()))
        found, position = set(), 0
        for sentence in split(re.sub(r" [|¦] ", " ", line)):
            position += len("".join(sentence.split()))
            found.add(position)
        found -= {0, count} | ends["¦"]
        right, wrong, missed = (
            right + len(found & ends["|"]),
            wrong + len(found - ends["|"]),
            missed + len(ends["|"] - found),
        )
        paragraphs, exact = paragraphs + 1, exact + (found == ends["|"])
    return {
        "exact": exact,
        "paragraphs": paragraphs,
        "precision": right / (right + wrong),
        "recall": right / (right + missed),
        "f1": 2 * right / (2 * right + wrong + missed),
    }


def timed(work: Callable[[list[str]], Any], texts: list[str], seconds: float = 10.0) -> float:
    """MB of text a CPU second, over as many texts as fit in about ``seconds``."""
    size, start = 0, time.process_time()
    for first in range(0, len(texts), 1000):
        block = texts[first : first + 1000]
        work(block)
        size += sum(len(text.encode()) for text in block)
        if time.process_time() - start > seconds:
            break
    return size / 1e6 / (time.process_time() - start)


def measure_splitter(name: str, inputs: list[str], megabytes: float) -> dict[str, Any]:
    texts = paragraphs(inputs, megabytes)
    split = splitter(name, "\n".join(texts[::4]))
    return {**agreement(split), "MB/s": timed(lambda block: [split(text) for text in block], texts)}


def measure_encoder(name: str, inputs: list[str], megabytes: float, vocab: str) -> dict[str, Any]:
    from squeezebert.data.corpus_build import Encoder
    from squeezebert.tokenizer import Tokenizer

    split = splitter(SPLITTERS[0], "")
    sentences = [sentence for text in paragraphs(inputs, megabytes) for sentence in split(text)]
    tokenizer = Tokenizer.load(vocab)
    if name.startswith("Encoder"):
        encoder = Encoder(tokenizer)
        # As many sentences at a time as a chunk holds.
        blocks = ["\n".join(sentences[first : first + 20_000]) for first in range(0, len(sentences), 20_000)]
        return {"MB/s": timed(lambda block: [encoder.encode(text.split("\n")) for text in block], blocks)}
    if name.startswith("Tokenizer"):
        return {"MB/s": timed(lambda block: tokenizer.encode_batch(block), sentences)}
    import tempfile

    import transformers

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        peer = transformers.BertTokenizer.from_pretrained(folder)
    return {"MB/s": timed(lambda block: peer(block, truncation=True, return_attention_mask=False), sentences)}


def measure_build(processes: int, inputs: list[str], vocab: str, output: Path) -> dict[str, Any]:
    from squeezebert.data.corpus_build import Progress, build_corpus

    reports: list[Progress] = []
    start = time.perf_counter()
    manifest = build_corpus(inputs, output, vocab, processes=processes, report=reports.append)
    seconds = time.perf_counter() - start
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "processes": processes,
        "MB": reports[-1].bytes_done / 1e6,
        "seconds": seconds,
        "cpu_seconds": sum(usage.ru_utime + usage.ru_stime for usage in usages),
        "largest_process_MB": max(usage.ru_maxrss for usage in usages) / 1e3,
        "documents": sum(counts.documents for counts in manifest.splits.values()),
        "sentences": sum(counts.sentences for counts in manifest.splits.values()),
        "tokens": sum(counts.tokens for counts in manifest.splits.values()),
        "dropped": manifest.dropped,
    }


def in_fresh_process(*what: str) -> dict[str, Any] | None:
    """Run one measurement; None where its library is missing."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{' '.join(what)}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    print(f"{' '.join(what)}: {done.stdout.strip()}", file=sys.stderr)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def same_files(folders: list[Path]) -> bool:
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    return all(content == contents[0] for content in contents)


def rows_of(names: list[str], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        if found := in_fresh_process(kind, name):
            yield name, found


def report(args: Any) -> None:
    splitters = dict(rows_of(SPLITTERS, "splitter"))
    encoders = dict(rows_of(ENCODERS, "encoder"))
    folders = [args.output / f"corpus-{processes}" for processes in args.processes]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    builds = [in_fresh_process("build", str(processes)) for processes in args.processes]
    rows = [
        [
            name,
            f"{found['exact']} of {found['paragraphs']}",
            *(f"{found[key]:.3f}" for key in ("precision", "recall", "f1")),
            f"{found['MB/s']:.1f}",
        ]
        for name, found in splitters.items()
    ]
    body = "## Sentence splitters\n\n" + harness.markdown_table(
        ["library", "paragraphs right", "precision", "recall", "F1", "MB a CPU second"], rows
    )
    body += "\n\n## Tokens\n\n" + harness.markdown_table(
        ["", "MB a CPU second"], [[name, f"{found['MB/s']:.2f}"] for name, found in encoders.items()]
    )
    rows = [
        [
            str(found["processes"]),
            f"{found['MB']:.1f}",
            f"{found['seconds']:.1f}",
            f"{found['MB'] / found['seconds']:.2f}",
            f"{found['MB'] / found['seconds'] / found['processes']:.2f}",
            f"{found['MB'] / found['cpu_seconds']:.2f}",
            f"{found['largest_process_MB']:.0f}",
        ]
        for found in builds
        if found
    ]
    body += "\n\n## Whole build\n\n" + harness.markdown_table(
        ["processes", "MB", "seconds", "MB/s", "MB/s a process", "MB a CPU second", "largest process, MB"], rows
    )
    first = builds[0]
    if first:
        body += f"\n\n{first['documents']:,} documents, {first['sentences']:,} sentences, {first['tokens']:,} tokens; "
        body += f"left out: {first['dropped']}. "
    body += f"All files of all builds equal: {same_files(folders)}. Load of the machine: {os.getloadavg()[1]:.1f}."
    libraries = ["sentencex", "blingfire", "pysbd", "segtok", "syntok", "nltk", "py3langid", "tokenizers", "numpy"]
    data = {"splitters": splitters, "encoders": encoders, "builds": builds}
    harness.write_results("corpus_build", "Corpus building", body, data, libraries)


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("inputs", nargs="+", help="as for `squeezebert corpus build`")
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpora built")
    parser.add_argument("--sample", type=float, default=40.0, help="MB for splitters and tokenizers")
    args = parser.parse_args()
    if args.worker is None:
        report(args)
        return
    kind, name = json.loads(args.worker)
    if kind == "splitter":
        found = measure_splitter(name, args.inputs, args.sample)
    elif kind == "encoder":
        found = measure_encoder(name, args.inputs, args.sample, args.vocab)
    else:
        found = measure_build(int(name), args.inputs, args.vocab, args.output / f"corpus-{name}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
