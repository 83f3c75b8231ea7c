"""Statistics of pretraining batches over a real corpus: masking, sentence order, documents, padding.

    python benchmarks/pretraining_batches.py CORPUS [--steps 100]

Reads `--steps` steps of 256 rows as a run reads them, in parts of 32 rows, for rows of 128 and of 512 tokens. It stops
with an error where a row leaves its document.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import harness
import numpy as np

from squeezebert.data.masking import Vocabulary
from squeezebert.data.pretraining import PretrainingSource
from squeezebert.data.shards import Corpus
from squeezebert.tokenizer import Tokenizer

ROWS, PART = 256, 32


def statistics(corpus: Corpus, vocabulary: Vocabulary, length: int, steps: int, mlm_only: bool) -> dict[str, float]:
    """Counts and shares over ``steps`` steps."""
    source = PretrainingSource(corpus, vocabulary, length=length, batch_size=ROWS, seed=0, mlm_only=mlm_only)
    starts = corpus.sentence_offsets[corpus.document_offsets]
    pairs = swapped = tokens = places = ordinary = masked = as_mask = as_itself = 0
    for step in range(steps):
        for group in source.groups(step):
            for begin, stop in group.segments:
                inside = (starts[group.documents] <= begin) & (stop <= starts[group.documents + 1])
                assert inside.all(), f"step {step}: a row leaves its document"
        for first in range(0, ROWS, PART):
            batch = source.batch(step, slice(first, first + PART))
            ids, at = batch.input_ids.ravel(), batch.masked_positions
            tokens, places = tokens + batch.tokens, places + ids.size
            ordinary += int(np.delete(vocabulary.ordinary[ids], at).sum()) + len(at)
            masked += len(at)
            as_mask += int((ids[at] == vocabulary.mask_id).sum())
            as_itself += int((ids[at] == batch.masked_labels).sum())
            if batch.sentence_order_labels is not None:
                pairs += len(batch.sentence_order_labels)
                swapped += int(batch.sentence_order_labels.sum())
    return {
        "length": length,
        "rows": steps * ROWS,
        "tokens": tokens,
        "masked": masked / ordinary,
        "as_mask": as_mask / masked,
        "as_another": 1 - (as_mask + as_itself) / masked,
        "as_itself": as_itself / masked,
        "pairs": pairs,
        "swapped": swapped / max(pairs, 1),
        "padding": 1 - tokens / places,
    }


def main() -> None:
    """Count, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    corpus = Corpus.open(args.corpus)
    vocabulary = Vocabulary.from_tokenizer(Tokenizer.load(args.corpus))
    results = [
        statistics(corpus, vocabulary, length, args.steps, mlm_only)
        for length in (128, 512)
        for mlm_only in (False, True)
    ]
    body = (
        "No row leaves its document. Swapped pairs have a standard deviation of "
        f"{50 / np.sqrt(args.steps * ROWS):.2f} points.\n\n"
    )
    header = ["length", "rows", "tokens", "masked", "as [MASK]", "as another token", "as itself", "swapped", "padding"]
    body += harness.markdown_table(header, list(map(_cells, results)))
    harness.write_results("pretraining_batches", "Pretraining batches", body, results, ["numpy"])


def _cells(figures: dict[str, Any]) -> list[str]:
    swapped = f"{figures['swapped']:.2%}" if figures["pairs"] else "no pairs"
    shares = [f"{figures[name]:.2%}" for name in ("masked", "as_mask", "as_another", "as_itself")]
    counts = [f"{figures[name]:,}" for name in ("length", "rows", "tokens")]
    return [*counts, *shares, swapped, f"{figures['padding']:.2%}"]


if __name__ == "__main__":
    main()
