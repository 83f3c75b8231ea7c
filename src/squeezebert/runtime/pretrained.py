"""What a pretrained model knows without finetuning: words for gaps, and the order of two passages."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from squeezebert import checkpoint
from squeezebert.checkpoint import Loaded
from squeezebert.errors import InputError


class Guess(NamedTuple):
    """A token for a gap."""

    token: str
    probability: float


def load_pretrained(source: str | Path, head: str) -> Loaded:
    """Load a checkpoint that pretraining left.

    Args:
        source: Folder or hub id.
        head: What is needed of it: "masked_lm" or "pretraining" (which has sentence order, too).

    Raises:
        InputError: It has not learned that, or has no vocabulary.
    """
    if checkpoint.is_size(source):
        raise InputError(f"{source}: a size name stands for random weights; give the folder of a pretraining run")
    found = checkpoint.find_head(source)
    if found not in ("pretraining", head):
        kind = "sentence-order" if head == "pretraining" else "masked language model's"
        raise InputError(f"{source}: has no {kind} head, but {found}; give the folder of a pretraining run")
    loaded = checkpoint.load(source, head)
    if loaded.tokenizer is None:
        raise InputError(f"{source}: has no vocabulary; put its vocab.txt there")
    return loaded


def fill_mask(loaded: Loaded, text: str, *, top: int = 5) -> list[list[Guess]]:
    """Guess the tokens behind each ``[MASK]`` of a text.

    Args:
        loaded: With a masked language model.
        text: Holds ``[MASK]`` once or more.
        top: Guesses for each gap, likeliest first.

    Returns:
        Guesses gap by gap; the probabilities are those of each gap alone.

    Raises:
        InputError: The text has no gap, or is too long.
    """
    tokenizer = loaded.tokenizer
    assert tokenizer is not None
    longest = loaded.config.max_position_embeddings
    encoding = tokenizer.encode(text, max_length=longest + 1)
    if len(encoding.input_ids) > longest:
        raise InputError(f"the text has more than the {longest} tokens that the model takes; shorten it")
    ids_1T = torch.tensor([encoding.input_ids])
    gaps = (ids_1T[0] == tokenizer.mask_id).nonzero()[:, 0]
    if not len(gaps):
        raise InputError('the text has no gap; write [MASK] in place of a word, as in "the capital of [MASK] is paris"')
    with torch.inference_mode():
        logits = loaded.model(ids_1T, masked_positions=gaps).logits.float()
        # The special tokens are no words; rows that only pad the vocabulary are minus infinity already.
        logits[:, sorted(tokenizer.special_ids)] = float("-inf")
        best = logits.softmax(-1).topk(min(top, tokenizer.vocab_size - len(tokenizer.special_ids)))
    return [
        [Guess(tokenizer.id_to_token(index) or "", probability) for index, probability in zip(*columns, strict=True)]
        for columns in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def in_order_probability(loaded: Loaded, first: str, second: str) -> float:
    """Probability that ``first`` stands before ``second``, of two neighbouring passages.

    Args:
        loaded: With a sentence-order head.
        first: The passage that is given first.
        second: The passage that is given second.

    Raises:
        InputError: Both together are too long.
    """
    tokenizer = loaded.tokenizer
    assert tokenizer is not None
    longest = loaded.config.max_position_embeddings
    encoding = tokenizer.encode(first, second, max_length=longest + 1)
    if len(encoding.input_ids) > longest:
        raise InputError(f"both texts together have more than the {longest} tokens that the model takes; shorten them")
    with torch.inference_mode():
        output = loaded.model(
            torch.tensor([encoding.input_ids]),
            token_type_ids=torch.tensor([encoding.token_type_ids]),
            masked_positions=torch.empty(0, dtype=torch.long),
        )
    return float(output.sentence_order_logits.float().softmax(-1)[0, 0])
