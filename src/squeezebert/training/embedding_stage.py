"""The first stage of general distillation: the embeddings alone, on random tokens.

The embeddings' output is a sum that no other layer sees, so it is learned without the encoder, at a small part of the
cost of a step, and with a learning rate that the encoder would not stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from squeezebert.model.embeddings import Embeddings
from squeezebert.model.squeezebert import SqueezeBert
from squeezebert.training.encoder_distillation import DistilledEncoder, relative_error
from squeezebert.training.grouping import reordered
from squeezebert.training.loop import LoopSettings, fit
from squeezebert.training.losses import to_device, unwrapped
from squeezebert.training.optimizer import build_optimizer
from squeezebert.training.progress import Figures, say
from squeezebert.training.recipes import DistillationRecipe
from squeezebert.training.schedule import Phase

FOLDER = "embedding"
"""Folder of the stage inside the run's."""
_WARMUP = 0.05
_SAVES = 4


@dataclass(frozen=True, slots=True)
class RandomTokens:
    """Tokens at random places of random segments. *Shape:* ``[N]`` each."""

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    types: NDArray[np.int64]


class RandomTokenSource:
    """Draws tokens; those of a step depend on seed and step alone.

    Args:
        tokens: Tokens that exist; the padding token is never drawn, its vector being no token's.
        pad_id: That token.
        positions: Positions that both encoders know.
        types: Segments that both encoders know.
        count: Tokens of a step.
        seed: Seed of the draw.
    """

    steps_per_epoch = 1

    def __init__(self, *, tokens: int, pad_id: int, positions: int, types: int, count: int, seed: int) -> None:
        self._ids = np.delete(np.arange(tokens), pad_id)
        self._positions = positions
        self._types = types
        self._count = count
        self._seed = seed

    def examples(self, step: int) -> NDArray[np.int64]:
        """Numbers of the step's tokens."""
        return np.arange(self._count)

    def batch(self, step: int, examples: NDArray[np.int64]) -> RandomTokens:
        """Some of the step's tokens."""
        draw = np.random.default_rng([self._seed, step])
        ids = self._ids[draw.integers(len(self._ids), size=self._count)]
        positions = draw.integers(self._positions, size=self._count)
        types = draw.integers(self._types, size=self._count)
        return RandomTokens(ids[examples], positions[examples], types[examples])


class _Student(nn.Module):
    """The student's embeddings and what widens their output."""

    def __init__(self, student: DistilledEncoder) -> None:
        super().__init__()
        self.embeddings = student.encoder.embeddings
        self.projection = student.embedding_projection

    def forward(self, ids: Tensor, positions: Tensor, types: Tensor) -> Tensor:
        # Dropout would only blur what is to be matched.
        self.embeddings.eval()
        vectors: Tensor = self.projection(self.embeddings(ids, positions, types))
        return vectors


class _Loss:
    """Relative squared error of the embeddings' output."""

    names = ("embedding_error",)

    def __init__(
        self, teacher: Embeddings, device: torch.device, usual: RandomTokens, places: Tensor | None = None
    ) -> None:
        self._teacher = teacher
        self._device = device
        self._places = places
        self._scale = float(self._ask(usual)[1].square().sum(-1).mean())

    def count(self, batch: RandomTokens) -> tuple[float, ...]:
        return (len(batch.ids),)

    def tokens(self, batch: RandomTokens) -> int:
        return len(batch.ids)

    def __call__(self, model: nn.Module, batch: RandomTokens) -> Tensor:
        inputs, theirs = self._ask(batch)
        return relative_error(model(*inputs), theirs, None, self._scale).view(1)

    @torch.no_grad()
    def _ask(self, batch: RandomTokens) -> tuple[list[Tensor], Tensor]:
        """The tokens on the device, and the teacher's vectors of them."""
        inputs = [to_device(each, self._device) for each in (batch.ids, batch.positions, batch.types)]
        return inputs, reordered(self._teacher(*inputs), self._places)


def train_embedding(
    accelerator: Accelerator,
    student: DistilledEncoder,
    teacher: SqueezeBert,
    recipe: DistillationRecipe,
    *,
    places: Tensor | None,
    folder: Path,
    seed: int,
    deadline: float,
) -> bool:
    """Make the student's embeddings give what the teacher's give, going on where a former session stopped.

    Args:
        accelerator: Device and processes.
        student: Its embeddings are trained in place.
        teacher: On the device, in evaluation mode.
        recipe: Steps, tokens of a step and learning rate.
        places: Channel of the teacher that each of the student's stands for; None: its own.
        folder: Of the run.
        seed: Seed of the draw.
        deadline: Moment of ``time.monotonic()`` at which to stop with a saved state.

    Returns:
        Whether the stage is finished.
    """
    model = _Student(student)
    ours, theirs = student.encoder.config, teacher.config
    sizes = {name: min(getattr(ours, name), getattr(theirs, name)) for name in
             ("vocab_size", "max_position_embeddings", "type_vocab_size")}  # fmt: skip
    source = RandomTokenSource(
        tokens=min(ours.real_vocab_size or ours.vocab_size, sizes["vocab_size"]),
        pad_id=ours.pad_token_id,
        positions=sizes["max_position_embeddings"],
        types=sizes["type_vocab_size"],
        count=recipe.embedding_tokens,
        seed=seed,
    )
    held_out = source.batch(recipe.embedding_steps, source.examples(0))
    loss = _Loss(teacher.embeddings, accelerator.device, held_out, places)

    def evaluate() -> tuple[float, Figures]:
        with torch.inference_mode():
            error = float(loss(unwrapped(model), held_out)) / len(held_out.ids)
        return -error, {"random_tokens": {"embedding_error": error}}

    phase = Phase(steps=recipe.embedding_steps, learning_rate=recipe.embedding_learning_rate, warmup_proportion=_WARMUP)
    progress = fit(
        accelerator=accelerator,
        model=model,
        optimizer=build_optimizer(model, learning_rate=phase.learning_rate, weight_decay=0.0),
        learning_rate_at=phase.learning_rate_at,
        source=source,
        objective=loss,
        evaluate=evaluate,
        keep_best=lambda _: None,
        settings=LoopSettings(
            total_steps=phase.steps,
            evaluate_every=phase.steps,
            save_every=max(1, phase.steps // _SAVES),
            seed=seed,
            keep=1,
            deadline=deadline,
        ),
        folder=folder / FOLDER,
        title="embedding",
    )
    accelerator.free_memory()
    if progress.best is not None:
        say(f"embedding: relative squared error {progress.best.figures['random_tokens']['embedding_error']:.2e}")
    return progress.step == phase.steps
