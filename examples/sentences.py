"""Write some of a corpus's sentences as a table: texts without labels, for `squeezebert distill --unlabelled`.

python examples/sentences.py CORPUS 40000 sentences.csv [COLUMN]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from squeezebert.data.shards import Corpus
from squeezebert.tokenizer import Tokenizer

SHORTEST, LONGEST = 5, 40  # tokens


def main(folder: str, count: int, output: str, column: str = "text") -> None:
    """Draw sentences without repetition, the same ones each time, and write them in one column."""
    corpus, tokenizer = Corpus.open(folder), Tokenizer.load(folder)
    lengths = np.diff(corpus.sentence_offsets)
    fit = np.flatnonzero((lengths >= SHORTEST) & (lengths <= LONGEST))
    chosen = np.random.default_rng(0).choice(fit, size=min(count, len(fit)), replace=False)
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column])
        writer.writerows([tokenizer.decode(corpus.sentence(index).tolist())] for index in chosen)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
