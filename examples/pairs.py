"""Write pairs of texts as documents for `squeezebert corpus build`, so that an encoder learns to compare two passages.

python examples/pairs.py GLUE pairs.jsonl FILE=COUNT ...

Text alone does not teach it: the second of two passages hardly ever says what the first one said. Here are the pairs of
GLUE's training sets without their labels, sentences beside damaged copies of themselves, and whole documents: the first
COUNT of each FILE (.jsonl.zst, "text" in each line), from which the sentences come too. Build the corpus with
`--no-duplicate-filter --no-language-filter`: many pairs share a text, and short texts look like no language.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard

from squeezebert.data.tasks import get_task, load_split

TASKS = ("mnli", "qqp", "qnli", "mrpc", "stsb", "rte", "wnli")
COPIES = 50_000
SHORTEST, LONGEST = 5, 35  # words of a copied sentence
LOST, SWAPPED, TURNED = 0.15, 0.1, 0.3  # share of words left out, of neighbours swapped, of copies begun elsewhere


def documents(path: Path, count: int) -> Iterator[str]:
    """The first texts of a file."""
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file)
        for line in itertools.islice(io.TextIOWrapper(stream, encoding="utf-8"), count):
            yield json.loads(line)["text"]


def damaged(words: list[str], chance: random.Random) -> list[str]:
    """A copy that lacks some words, has others swapped, and may begin in the middle."""
    kept = [word for word in words if chance.random() > LOST] or words[:1]
    for i in range(len(kept) - 1):
        if chance.random() < SWAPPED:
            kept[i], kept[i + 1] = kept[i + 1], kept[i]
    start = chance.randrange(len(kept)) if chance.random() < TURNED else 0
    return kept[start:] + kept[:start]


def main(glue: str, output: str, *files: str) -> None:
    """Write the documents, shuffled; the same ones each time."""
    chance = random.Random(0)
    parts = [file.rsplit("=", 1) for file in files]
    whole = [text for path, count in parts for text in documents(Path(path), int(count))]
    sentences = [
        f"{sentence.strip()}."
        for text in whole
        for sentence in text.replace("\n", " ").split(". ")
        if SHORTEST <= len(sentence.split()) <= LONGEST
    ]
    chance.shuffle(sentences)
    texts = [[text] for text in whole]
    texts += [[sentence, " ".join(damaged(sentence.split(), chance))] for sentence in sentences[:COPIES]]
    for task in TASKS:
        texts += [[row.text, row.pair or ""] for row in load_split(get_task(task), "train", Path(glue))]
    chance.shuffle(texts)
    with Path(output).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": "\n\n".join(each)}) + "\n" for each in texts)


if __name__ == "__main__":
    main(*sys.argv[1:])
