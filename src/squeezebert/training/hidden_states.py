"""Distillation of hidden states on a task's own texts: a student's layers come to compute what its teacher's compute.

TinyBERT's second step (Jiao et al. 2020, section 3.2, equations 8 and 9), here in one run with the prediction. Errors
are relative to the mean square of the teacher's vectors in a layer, as in general distillation
(:mod:`squeezebert.training.encoder_distillation`); the embeddings and every layer of the student weigh the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from squeezebert import bert
from squeezebert.data.collate import Batch
from squeezebert.errors import InputError
from squeezebert.model.config import ModelConfig
from squeezebert.model.squeezebert import SqueezeBert
from squeezebert.tokenizer import Tokenizer
from squeezebert.training.encoder_distillation import layer_map, relative_error, require_same_vocabulary
from squeezebert.training.grouping import Order, reordered
from squeezebert.training.losses import forward, to_device


class HiddenStateLoss:
    """How far a student's hidden states are from a teacher's.

    Args:
        source: The teacher: a folder or hub id of a BERT-like classifier, or of one of this package.
        student: Sizes of the student.
        tokenizer: The student's.
        max_length: Tokens of the longest example.
        weight: What the distance is multiplied with.
        device: Where to compute.
        order: In which the student, a model like its teacher, was put; None: in none.

    Raises:
        InputError: The teacher cannot be read, or has another vocabulary or width, or fewer positions.
    """

    def __init__(
        self,
        source: str,
        student: ModelConfig,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        weight: float,
        device: torch.device,
        order: Order | None = None,
    ) -> None:
        loaded = bert.load_encoder(source)
        require_same_vocabulary(
            source, loaded.tokenizer, tokenizer, "the student's", "leave hidden out, or take a teacher that shares it"
        )
        if loaded.config.hidden_size != student.hidden_size:
            raise InputError(
                f"{source}: has hidden states of {loaded.config.hidden_size} channels, the student of "
                f"{student.hidden_size}; leave hidden out, or take a teacher of its width"
            )
        if loaded.config.max_position_embeddings < max_length:
            raise InputError(
                f"{source}: takes {loaded.config.max_position_embeddings} tokens; lower max_length from {max_length}"
            )
        assert isinstance(loaded.model, SqueezeBert)
        self._teacher = loaded.model.to(device).eval().requires_grad_(False)
        self._device = device
        self._places = None if order is None else order.places.to(device)
        self._weight = weight
        layers = layer_map((), student.num_hidden_layers, loaded.config.num_hidden_layers)
        self._pairs = [(0, 0), *layers]
        self._scales = [1.0] * (loaded.config.num_hidden_layers + 1)

    @torch.no_grad()
    def calibrate(self, batch: Batch) -> None:
        """Measure the teacher's vectors, to which errors are relative; always with the same examples of a run."""
        mask_BT = to_device(batch.attention_mask, self._device)
        states = self._states(batch)
        self._scales = [float(relative_error(torch.zeros_like(t), t, mask_BT, 1.0) / mask_BT.sum()) for t in states]

    def __call__(self, hidden_states: Sequence[Tensor], batch: Batch) -> Tensor:
        """Sum over a batch's tokens of the mean relative error of embeddings and layers, weighted. Scalar.

        Args:
            hidden_states: The student's, ``[B, T, C]`` each.
            batch: What it read.
        """
        mask_BT = to_device(batch.attention_mask, self._device)
        theirs = self._states(batch)
        errors = [
            relative_error(hidden_states[ours], theirs[taught], mask_BT, self._scales[taught])
            for ours, taught in self._pairs
        ]
        return self._weight * torch.stack(errors).mean()

    @torch.no_grad()
    def _states(self, batch: Batch) -> tuple[Tensor, ...]:
        states: tuple[Tensor, ...] = forward(self._teacher, batch, self._device, hidden_states=True).hidden_states
        return tuple(reordered(each, self._places) for each in states)
