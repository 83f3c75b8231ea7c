"""What teachers say of an example: their outputs in the order of the task's labels, softened, averaged. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezebert.data.label_names import find_places
from squeezebert.data.tasks import Task
from squeezebert.errors import InputError

if TYPE_CHECKING:
    from squeezebert.training.teacher import Teacher


def match_labels(teacher: Teacher, task: Task) -> NDArray[np.int64]:
    """Find the teacher's output for each label of a task, by name (:mod:`squeezebert.data.label_names`).

    Returns:
        Positions among the teacher's outputs, in the order of the task's labels.

    Raises:
        InputError: The teacher was trained for another kind of task, or other labels; the message lists both.
    """
    if teacher.problem_type not in (None, task.problem_type):
        raise InputError(f"{teacher.source}: made for {teacher.problem_type}, but {task.name} is {task.kind}")
    if task.kind == "regression":
        if len(teacher.labels) != 1:
            raise InputError(f"{teacher.source}: has {len(teacher.labels)} outputs, but {task.name} asks for one value")
        return np.zeros(1, dtype=np.int64)
    places = find_places(task.labels, teacher.labels)
    if places is None:
        raise InputError(
            f"{teacher.source}: its labels are {', '.join(teacher.labels)}, but those of {task.name} are "
            f"{', '.join(task.labels)}; where only the names differ, write the task's into id2label in its config.json"
        )
    return np.array(places)


class SoftTargets:
    """The mean of several teachers' answers.

    Of classes it is the mean of their probabilities at a temperature ``T``, ``softmax(logits / T)`` (of several labels
    at once ``sigmoid(logits / T)``), of values the mean value.

    Args:
        logits: Each teacher's outputs. *Shape:* ``[n, K]`` each.
        columns: Each teacher's output for each label, from :func:`match_labels`.
        kind: What the outputs stand for.
        temperature: ``T``.
    """

    def __init__(
        self,
        logits: Sequence[NDArray[np.float32]],
        columns: Sequence[NDArray[np.int64]],
        kind: str,
        temperature: float,
    ) -> None:
        self._teachers = list(zip(logits, columns, strict=True))
        self._kind = kind
        self._temperature = temperature

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Give the targets of some examples. *Shape:* ``[B, K]``."""
        answers = [self._answer(np.asarray(logits[indices])[:, columns]) for logits, columns in self._teachers]
        mean: NDArray[np.float32] = np.mean(answers, axis=0, dtype=np.float32)
        return mean

    def _answer(self, logits_BK: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._kind == "regression":
            return logits_BK
        scaled = logits_BK / np.float32(self._temperature)
        if self._kind == "multi_label":
            several: NDArray[np.float32] = np.exp(-np.logaddexp(0, -scaled))
            return several
        exponents = np.exp(scaled - scaled.max(1, keepdims=True))
        probabilities: NDArray[np.float32] = exponents / exponents.sum(1, keepdims=True)
        return probabilities
