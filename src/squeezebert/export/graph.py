"""Checkpoint -> graph: a model as the converters want it, three tensors in, a tuple of tensors out."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from squeezebert import artifact, checkpoint
from squeezebert.checkpoint import Loaded
from squeezebert.errors import InputError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names of a graph's inputs, in order; ``[B, T]`` whole numbers each."""


@dataclass(frozen=True)
class Graph:
    """A model to convert, with what belongs to it."""

    module: nn.Module
    """Takes :data:`INPUTS`, gives the outputs that :data:`squeezebert.artifact.OUTPUTS` names."""
    head: str
    loaded: Loaded
    max_length: int
    """Longest sequence that the artifact is to take, tokens."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return artifact.OUTPUTS[self.head]


class _Traced(nn.Module):
    """A model as three tensors in, a tuple out."""

    def __init__(self, model: nn.Module, head: str) -> None:
        super().__init__()
        # A choice is a row of its own, so that a graph of rows serves here too.
        self.choices = head == "multiple_choice"
        self.outputs = artifact.OUTPUTS[head]
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """Give the head's outputs for ``[B, T]`` inputs."""
        inputs = [input_ids, attention_mask, token_type_ids]
        if self.choices:
            inputs = [each[:, None] for each in inputs]
        # Asked for its probabilities, attention is two products and a softmax, which every converter reads; torch's
        # fused operator comes out of some of them with a search for NaN around each softmax.
        output = self.model(*inputs, output_attentions=True)
        return tuple(getattr(output, name) for name in self.outputs)


def load(source: str | Path, max_length: int | None, heads: tuple[str, ...]) -> Graph:
    """Load a checkpoint with the head that it has.

    Args:
        source: Folder or hub id of a checkpoint.
        max_length: Longest sequence that the artifact is to take, tokens; None: the model's.
        heads: Heads that the format carries.

    Raises:
        InputError: The checkpoint cannot be read, its head is not carried, or ``max_length`` is out of range.
    """
    if checkpoint.is_size(source):
        raise InputError(f"{source}: a size name stands for random weights; give a folder or a hub id to export")
    head = checkpoint.find_head(source)
    if head not in heads:
        raise InputError(f"{source}: has the head {head}; this format carries {', '.join(heads)}")
    loaded = checkpoint.load(source, head)
    positions = loaded.config.max_position_embeddings
    if max_length is not None:
        artifact.check_length(max_length, positions)
    return Graph(_Traced(loaded.model, head).eval(), head, loaded, max_length or positions)


def example(rows: int = 2, tokens: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs to trace with, padded so that no converter takes the mask for a constant. *Shape:* ``[rows, tokens]``."""
    ids = torch.arange(rows * tokens).view(rows, tokens) % 97 + 1
    mask = (torch.arange(tokens) < tokens // 2 + torch.arange(rows)[:, None]).long()
    return ids, mask, torch.zeros_like(ids)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back converters' warnings, logs and progress bars; errors still come through, as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
