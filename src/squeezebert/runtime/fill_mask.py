"""Words for the gaps of a text, by a masked language model. Works where torch is absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from squeezebert.errors import InputError
from squeezebert.runtime.predictor import probabilities

if TYPE_CHECKING:
    from squeezebert.tokenizer import Tokenizer


class Guess(NamedTuple):
    """A token for a gap."""

    token: str
    probability: float


class MaskedModel(Protocol):
    """A masked language model, ready to run."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Its vocabulary; None: there is none beside its weights."""

    @property
    def max_length(self) -> int:
        """Longest sequence that it takes, tokens."""

    def masked_logits(self, ids_T: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32]:
        """Score the vocabulary at some places of one sequence.

        Args:
            ids_T: Token ids.
            positions: Places among them.

        Returns:
            ``[M, V]``; minus infinity in rows that only pad the vocabulary.
        """


def fill_mask(model: MaskedModel, text: str, *, top: int = 5) -> list[list[Guess]]:
    """Guess the tokens behind each ``[MASK]`` of a text.

    Args:
        model: From :func:`squeezebert.runtime.engines.choice.load_masked_lm`.
        text: Holds ``[MASK]`` once or more.
        top: Guesses for each gap, likeliest first.

    Returns:
        Guesses gap by gap; the probabilities are those of each gap alone.

    Raises:
        InputError: The model has no vocabulary, or the text no gap, or it is too long.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise InputError("the model has no vocabulary; put its vocab.txt beside the weights")
    ids = tokenizer.encode(text, max_length=model.max_length + 1).input_ids
    if len(ids) > model.max_length:
        raise InputError(f"the text has more than the {model.max_length} tokens that the model takes; shorten it")
    gaps = [place for place, token in enumerate(ids) if token == tokenizer.mask_id]
    if not gaps:
        raise InputError('the text has no gap; write [MASK] in place of a word, as in "the capital of [MASK] is paris"')
    logits_MV = model.masked_logits(ids, gaps)
    # The special tokens are no words; rows that only pad the vocabulary are minus infinity already.
    logits_MV[:, sorted(tokenizer.special_ids)] = -np.inf
    count = min(top, tokenizer.vocab_size - len(tokenizer.special_ids))
    guesses = []
    for chances_V in probabilities("single_label", logits_MV):
        best = np.argsort(-chances_V, kind="stable")[:count].tolist()
        guesses.append([Guess(tokenizer.id_to_token(index) or "", float(chances_V[index])) for index in best])
    return guesses
