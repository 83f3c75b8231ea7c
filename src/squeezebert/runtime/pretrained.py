"""What a pretrained model knows without finetuning, through torch: words for gaps, and the order of two passages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from squeezebert import checkpoint
from squeezebert.checkpoint import Loaded
from squeezebert.errors import InputError


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


class TorchMaskedModel:
    """A masked language model in fp32, on the CPU.

    Attributes:
        tokenizer: Its vocabulary.
        max_length: Longest sequence that it takes, tokens.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.max_length: int = loaded.config.max_position_embeddings

    @classmethod
    def load(cls, source: str | Path) -> TorchMaskedModel:
        """Load a checkpoint; as :func:`load_pretrained`."""
        return cls(load_pretrained(source, "masked_lm"))

    @torch.inference_mode()
    def masked_logits(self, ids_T: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32]:
        """As :meth:`squeezebert.runtime.fill_mask.MaskedModel.masked_logits`."""
        output = self._model(torch.tensor([list(ids_T)]), masked_positions=torch.tensor(list(positions)))
        logits: NDArray[np.float32] = output.logits.float().numpy()
        return logits


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
