"""``squeezebert corpus``: turn raw text into a pretraining corpus, and look into one."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from squeezebert.data.corpus import BOUNDARIES, Settings
from squeezebert.data.corpus_build import Progress, build_corpus
from squeezebert.data.shards import SPLITS, Corpus, Lengths, Manifest, summarize_lengths
from squeezebert.durations import duration
from squeezebert.errors import InputError
from squeezebert.tokenizer import Tokenizer

_EXCERPT = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    summary = "raw text to token shards; stopped, the same command goes on where it was"
    build = actions.add_parser("build", help=summary, description=summary[0].upper() + summary[1:] + ".")
    build.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help=".txt or .jsonl (also .gz, .zst), .parquet, a file or folder of WikiExtractor, any folder of these; "
        "from the hub: wikipedia, bookcorpus or hub:OWNER/NAME[:CONFIGURATION]",
    )
    build.add_argument("--output", metavar="CORPUS", type=Path, required=True, help="folder to write")
    build.add_argument(
        "--vocab", metavar="VOCAB", required=True, help="vocab.txt, tokenizer.json, a folder with either, or a hub id"
    )
    build.add_argument(
        "--processes", metavar="N", type=int, default=1, help="the result does not depend on it (default: 1)"
    )
    build.add_argument(
        "--text-field", metavar="NAME", default="text", help="field or column that holds the text (default: text)"
    )
    build.add_argument(
        "--txt-documents",
        choices=BOUNDARIES,
        default="blank-line",
        help="what ends a document in a .txt file (default: blank-line)",
    )
    build.add_argument(
        "--join-lines",
        action="store_true",
        help="lines have a fixed width: only a blank line ends a paragraph, and with it a sentence",
    )
    build.add_argument(
        "--language", metavar="CODE", default="en", help="language to keep and to split by the rules of (default: en)"
    )
    build.add_argument("--no-cleaning", action="store_true", help="leave control characters and odd blanks in")
    build.add_argument("--no-language-filter", action="store_true", help="keep documents in any language")
    build.add_argument("--no-duplicate-filter", action="store_true", help="keep documents that occurred before")
    build.add_argument(
        "--held-out", metavar="SHARE", type=float, default=0.03, help="share of documents held out (default: 0.03)"
    )
    summary = "check a corpus, count what is in it, show documents"
    inspect = actions.add_parser("inspect", help=summary, description=summary[0].upper() + summary[1:] + ".")
    inspect.add_argument("corpus", metavar="CORPUS", type=Path, help="folder that `corpus build` wrote")
    inspect.add_argument("--split", choices=SPLITS, default="train", help="which part to look at (default: train)")
    inspect.add_argument("--document", metavar="I", type=int, help="print only this document, a sentence a line")


def run(args: argparse.Namespace) -> None:
    """Build or inspect."""
    if args.action == "build":
        _build(args)
    elif args.document is not None:
        _print_document(Corpus.open(args.corpus, args.split), args.document)
    else:
        _inspect(args)


def _build(args: argparse.Namespace) -> None:
    # Parallel work is what --processes asks for, no more; the worker processes inherit this.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    settings = Settings(
        text_field=args.text_field,
        txt_documents=args.txt_documents,
        join_lines=args.join_lines,
        clean=not args.no_cleaning,
        language=args.language,
        language_filter=not args.no_language_filter,
        duplicate_filter=not args.no_duplicate_filter,
        held_out=args.held_out,
    )
    reporter = _Reporter()
    try:
        manifest = build_corpus(
            args.inputs, args.output, args.vocab, settings, processes=args.processes, report=reporter.step
        )
    finally:
        reporter.close()
    _print_counts(manifest)
    print(f"{reporter.summary()} -> {args.output}")


class _Reporter:
    """One line on standard error: renewed every second on a terminal, added every minute in a log file."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._start = self._shown = time.monotonic()
        self._last: Progress | None = None
        self._width = 0

    def step(self, progress: Progress) -> None:
        self._last = progress
        now = time.monotonic()
        if now - self._shown >= (1 if self._terminal else 60):
            self._shown = now
            line = self._line(progress)
            start, end = ("\r", "") if self._terminal else ("", "\n")
            print(f"{start}{line:<{self._width}}", end=end, file=sys.stderr, flush=True)
            self._width = len(line) if self._terminal else 0

    def close(self) -> None:
        if self._width:
            print(file=sys.stderr)

    def _rate(self, progress: Progress) -> float:
        """Bytes a second that this run turned into tokens."""
        return (progress.bytes_done - progress.bytes_kept) / max(time.monotonic() - self._start, 1e-9)

    def _line(self, progress: Progress) -> str:
        line = f"{progress.bytes_done / 1e6:,.0f}"
        rate = self._rate(progress)
        left = 0.0
        if progress.bytes_total is not None:
            line += f" of about {max(progress.bytes_total, progress.bytes_done) / 1e6:,.0f}"
            left = progress.bytes_total - progress.bytes_done
        line += f" MB of text, {rate / 1e6:.1f} MB/s"
        return line + f", about {duration(left / rate)} left" if left > 0 and rate > 0 else line

    def summary(self) -> str:
        if self._last is None:
            return "was complete already"
        line = f"{self._last.bytes_done / 1e6:,.1f} MB of text in {duration(time.monotonic() - self._start)}"
        if self._last.bytes_kept:
            line += f" ({self._last.bytes_kept / 1e6:,.1f} MB were done before)"
        return f"{line}, {self._rate(self._last) / 1e6:.2f} MB/s"


def _print_counts(manifest: Manifest) -> None:
    print(f"{'':10}{'documents':>14}{'sentences':>14}{'tokens':>16}")
    for name, counts in manifest.splits.items():
        print(f"{name:10}{counts.documents:>14,}{counts.sentences:>14,}{counts.tokens:>16,}")
    dropped = manifest.dropped
    print(
        f"left out: {dropped.get('duplicate', 0):,} duplicates, {dropped.get('language', 0):,} in another language, "
        f"{dropped.get('empty', 0):,} empty"
    )


def _inspect(args: argparse.Namespace) -> None:
    corpus = Corpus.open(args.corpus, args.split, verify=True)
    print(f"{args.corpus}: all {len(corpus.manifest.files)} files match their SHA-256")
    print(f"vocabulary of {corpus.vocab_size:,} tokens, ids as {corpus.manifest.dtype}")
    _print_counts(corpus.manifest)
    print(f"\n{corpus.split + ' lengths':24}{'mean':>10}{'5%':>10}{'median':>10}{'95%':>10}{'longest':>10}")
    _print_lengths("tokens of a sentence", summarize_lengths(corpus.sentence_offsets))
    _print_lengths("sentences of a document", summarize_lengths(corpus.document_offsets))
    _print_lengths("tokens of a document", summarize_lengths(corpus.document_offsets, corpus.sentence_offsets))
    if corpus.n_documents:
        print()
        _print_document(corpus, 0, most=_EXCERPT)


def _print_lengths(name: str, lengths: Lengths) -> None:
    print(f"{name:24}{lengths.mean:>10,.1f}" + "".join(f"{length:>10,}" for length in lengths.quantiles.values()))


def _print_document(corpus: Corpus, index: int, *, most: int | None = None) -> None:
    if not 0 <= index < corpus.n_documents:
        raise InputError(
            f"{corpus.folder}: no document {index} in {corpus.split}; there are {corpus.n_documents:,}, from 0 on"
        )
    tokenizer = Tokenizer.load(corpus.folder)
    sentences = corpus.document(index)
    tokens = sum(map(len, sentences))
    print(f"document {index} of {corpus.split}: {len(sentences):,} sentences, {tokens:,} tokens")
    for number, ids in enumerate(sentences[:most]):
        print(f"{number:>6}  {tokenizer.decode(ids.tolist())}")
    if most is not None and len(sentences) > most:
        print(f"{'...':>6}")
