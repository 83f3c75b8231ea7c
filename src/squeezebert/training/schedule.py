"""Learning rates: linear warm-up, polynomial decay, and phases that each begin anew from zero.

Everything here is a pure function of the step, so a run that resumes, even on the border of two phases, continues on
exactly the curve it left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from squeezebert.errors import InputError


def warmup_polynomial(
    step: int, *, total_steps: int, warmup_steps: int, power: float = 1.0, end_factor: float = 0.0
) -> float:
    """Factor on the peak learning rate for one optimizer step.

    ``step / warmup_steps`` while warming up, then ``end + (1 - end) * (1 - progress) ** power``, where ``progress``
    runs from 0 at the end of the warm-up to 1 at ``total_steps``; ``end`` from there on.

    The curve is continuous. Both public LAMB recipes (google-research/albert ``optimization.py``; NVIDIA
    DeepLearningExamples, PyTorch BERT ``schedulers.py``, power 0.5) count the progress of the decay from step 0
    instead, so theirs falls at once by ``(1 - warmup_steps / total_steps) ** power`` when the warm-up ends.

    Args:
        step: Optimizer steps already taken, so 0 for the first one.
        total_steps: Optimizer steps from the beginning to the end of the decay.
        warmup_steps: Optimizer steps until the peak; 0 begins at the peak.
        power: Exponent of the decay: 1 a straight line, 0.5 as in NVIDIA's recipe, 0 no decay.
        end_factor: Factor at the end of the decay and beyond it.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if step >= total_steps:
        return end_factor
    remaining = (total_steps - step) / (total_steps - warmup_steps)
    return float(end_factor + (1.0 - end_factor) * remaining**power)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with its own peak and its own warm-up from zero.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    steps: int
    """Optimizer steps of the phase."""
    learning_rate: float
    """Learning rate at the peak."""
    warmup_proportion: float = 0.0
    """Share of the phase's steps until the peak, 0 to 1."""
    power: float = 1.0
    """Exponent of the polynomial decay after the peak."""
    end_factor: float = 0.0
    """Learning rate at the end of the phase, as a share of the peak."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"schedule: steps must be at least 1, not {self.steps}")
        if not self.learning_rate >= 0:
            raise InputError(f"schedule: learning_rate must be at least 0, not {self.learning_rate}")
        if not 0 <= self.warmup_proportion <= 1:
            raise InputError(f"schedule: warmup_proportion must lie in 0..1, not {self.warmup_proportion}")
        if not self.power >= 0:
            raise InputError(f"schedule: power must be at least 0, not {self.power}")
        if not 0 <= self.end_factor <= 1:
            raise InputError(f"schedule: end_factor must lie in 0..1, not {self.end_factor}")

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps until the peak."""
        return round(self.warmup_proportion * self.steps)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the phase's step ``step``, counted from 0 within the phase."""
        return self.learning_rate * warmup_polynomial(
            step,
            total_steps=self.steps,
            warmup_steps=self.warmup_steps,
            power=self.power,
            end_factor=self.end_factor,
        )


@dataclass(frozen=True)
class Schedule:
    """Phases one after another; each counts its steps from zero, so each warms up again.

    That the second phase warms up again is NVIDIA's recipe for BERT with LAMB (DeepLearningExamples, PyTorch BERT: the
    step counter is reset); the SqueezeBERT paper does not say.

    Raises:
        InputError: There is no phase.
    """

    phases: Sequence[Phase]

    def __post_init__(self) -> None:
        if not self.phases:
            raise InputError("schedule: at least one phase is needed")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, int]:
        """Find the phase of a step, and where in it the step lies.

        Args:
            step: Optimizer steps already taken in the whole run.

        Returns:
            Index of the phase and steps already taken in it. A step on a border belongs to the later phase; steps
            beyond the end belong to the last.
        """
        for index, phase in enumerate(self.phases[:-1]):
            if step < phase.steps:
                return index, step
            step -= phase.steps
        return len(self.phases) - 1, step

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of one optimizer step.

        Args:
            step: Optimizer steps already taken in the whole run, so 0 for the first one.
        """
        index, step_in_phase = self.phase_at(step)
        return self.phases[index].learning_rate_at(step_in_phase)
