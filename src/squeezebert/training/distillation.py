"""Finetuning from teachers: who they are, the extra texts they label, and the loss that comes of their outputs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from squeezebert import checkpoint
from squeezebert.data.collate import Batch
from squeezebert.data.examples import Example, Label
from squeezebert.data.tables import Columns, load_table
from squeezebert.data.tasks import Task
from squeezebert.model.config import ModelConfig
from squeezebert.tokenizer import Tokenizer
from squeezebert.training.batches import EncodedExamples
from squeezebert.training.distillation_loss import DistillationLoss
from squeezebert.training.grouping import Order, order_beside, order_of_checkpoint
from squeezebert.training.hidden_states import HiddenStateLoss
from squeezebert.training.loop import Objective
from squeezebert.training.losses import ClassificationLoss
from squeezebert.training.settings import FinetuneSettings
from squeezebert.training.soft_targets import SoftTargets, match_labels
from squeezebert.training.teacher import Teacher
from squeezebert.training.teacher_cache import teacher_logits

_CALIBRATION_EXAMPLES = 64


@dataclass(frozen=True)
class Distillation:
    """What a run learns from besides labels."""

    task: Task
    teachers: tuple[Teacher, ...]
    columns: tuple[NDArray[np.int64], ...]
    """Of each teacher, its output for each of the task's labels."""
    unlabelled: list[Example]
    """Texts that only the teachers label; a label that is never looked at stands in the labels' place."""
    notes: tuple[str, ...]
    """For people: teachers and unlabelled texts."""

    def fingerprint(self) -> str:
        """Hash of the teachers, in their order."""
        return hashlib.sha256("".join(teacher.fingerprint for teacher in self.teachers).encode()).hexdigest()

    def loss(
        self,
        settings: FinetuneSettings,
        examples: Sequence[Example],
        train: EncodedExamples,
        student: ModelConfig,
        tokenizer: Tokenizer,
        device: torch.device,
        order: Order | None = None,
    ) -> Objective[Batch]:
        """Ask the teachers, where the cache does not know their answers, and make the loss.

        Args:
            settings: Share of the teachers, temperature, weight of the hidden states.
            examples: The training examples, the unlabelled ones last.
            train: The same, as the student reads them; texts are cut at its length in the teachers' vocabularies too.
            student: Sizes of the student.
            tokenizer: Its tokenizer.
            device: Where to compute.
            order: In which the student, a model like its teacher, was put; None: in none.

        Raises:
            InputError: A teacher cannot be loaded, its outputs are not finite, or its hidden states cannot be compared.
            OSError: The cache cannot be written, or the disk is full.
        """
        if settings.alpha == 0:
            return ClassificationLoss(device)
        hidden = None
        if settings.hidden:
            teacher = self.teachers[0].source
            hidden = HiddenStateLoss(
                teacher, student, tokenizer, max_length=train.max_length, weight=settings.hidden, device=device,
                order=order_beside(teacher, order),
            )  # fmt: skip
            hidden.calibrate(train.collate(np.arange(min(_CALIBRATION_EXAMPLES, len(train)))))
        logits = [teacher_logits(each, examples, max_length=train.max_length, device=device) for each in self.teachers]
        targets = SoftTargets(logits, self.columns, self.task.kind, settings.temperature)
        return DistillationLoss(
            device,
            targets,
            alpha=settings.alpha,
            temperature=settings.temperature,
            labelled=len(examples) - len(self.unlabelled),
            hidden=hidden,
        )


def check_hidden_states(settings: FinetuneSettings, model: str) -> None:
    """Load a run's teacher and look whether its hidden states can be compared with a student's, and do no more.

    Args:
        settings: The run's.
        model: A student like the run's, which may not be made yet: a folder, hub id or name of a model in the package.

    Raises:
        InputError: They cannot; see :class:`HiddenStateLoss` and :func:`order_beside`.
    """
    folder, teacher = checkpoint.resolve(model), settings.teacher[0]
    config = checkpoint.read_config(folder)
    length = settings.max_length or config.max_position_embeddings
    HiddenStateLoss(
        teacher, config, Tokenizer.load(folder), max_length=length, weight=settings.hidden,
        device=torch.device("cpu"), order=order_beside(teacher, order_of_checkpoint(model)),
    )  # fmt: skip


def read_distillation(settings: FinetuneSettings, task: Task) -> Distillation:
    """Look into the teachers that ``settings`` name, and read the unlabelled texts.

    Raises:
        InputError: A teacher cannot be read or has other labels, or a table cannot be read.
    """
    teachers = tuple(Teacher.open(source) for source in settings.teacher)
    notes = [f"teacher: {teacher.source}, {teacher.model_type}" for teacher in teachers]
    unlabelled = []
    if settings.unlabelled is not None:
        unlabelled = _read_unlabelled(settings, settings.unlabelled, task)
        notes.append(f"unlabelled: {settings.unlabelled}, {len(unlabelled):,} rows that only the teachers label")
    columns = tuple(match_labels(teacher, task) for teacher in teachers)
    return Distillation(task, teachers, columns, unlabelled, tuple(notes))


def _read_unlabelled(settings: FinetuneSettings, path: Path, task: Task) -> list[Example]:
    """Texts of a table whose columns are called as those of the training data are."""
    names = (settings.text_column, settings.pair_column)
    if settings.task is not None:
        names = (task.text_columns[0], task.text_columns[1] if task.pair else None)
    nothing: Label = 0
    if task.kind != "single_label":
        nothing = 0.0 if task.kind == "regression" else (0,) * task.num_labels
    _, examples = load_table(path, Columns(*names), task=task)
    return [dataclasses.replace(example, label=nothing) for example in examples]
