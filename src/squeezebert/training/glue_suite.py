"""The GLUE suite: a finetuning run for each task, in one folder that says how they compare.

With bells and whistles it is the second way of finetuning in the paper (arXiv:2006.11316), of which no code was
published: every task is distilled from a teacher of its own, MNLI first, and MNLI's student is the start of the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import itertools
import math
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from squeezebert import __version__, checkpoint
from squeezebert.data.tasks import GLUE, Coverage, coverage, get_task, load_split
from squeezebert.errors import DivergedError, InputError
from squeezebert.evaluation.scorecard import RECORD, SUITE, read_suite
from squeezebert.evaluation.scorecard_report import write_scorecard
from squeezebert.files import read_json, write_json, write_text
from squeezebert.training.distillation import check_hidden_states
from squeezebert.training.finetune import finetune
from squeezebert.training.glue_presets import DISTILLATION, NINE, Preset, load_presets
from squeezebert.training.progress import say
from squeezebert.training.run_folder import METRICS, SETTINGS
from squeezebert.training.settings import Device, FinetuneSettings, Precision
from squeezebert.training.soft_targets import match_labels
from squeezebert.training.teacher import Teacher

_FAILED = "diverged.json"  # of a trial whose loss is lost


@dataclass(frozen=True, kw_only=True)
class SuiteSettings:
    """Everything that decides a suite.

    Raises:
        InputError: A task is unknown, or two settings do not go together.
    """

    model: str
    """The pretrained model: a folder, a hub id or a size name."""
    output: Path
    """The suite's folder; the same settings again go on with what is missing in it."""
    data_dir: Path | None = None
    """Root of the official GLUE files; None: the hub's copy."""
    tasks: tuple[str, ...] = NINE
    """What to learn, in any spelling."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """One run of each task for each."""
    bells_and_whistles: bool = False
    """Start the other tasks from MNLI's student."""
    teachers: str | None = None
    """Distil from these: a folder with one folder for each task, or one model for all tasks."""
    presets: str | None = None
    """Name or file of the presets; None: those for models of this size."""
    precision: Precision = "auto"
    """Number format of activations."""
    device: Device = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        chosen = {get_task(name).name for name in self.tasks}
        if not chosen or not chosen <= set(NINE):
            raise InputError(f"tasks: choose among {', '.join(NINE)}; ax has no training data, MNLI's model answers it")
        # MNLI comes first, since its student starts the others.
        object.__setattr__(self, "tasks", tuple(sorted(chosen, key=lambda name: (name != "mnli", NINE.index(name)))))
        if self.bells_and_whistles and self.teachers is None:
            raise InputError("bells and whistles need teachers: name their folder with --teachers")

    @property
    def preset_name(self) -> str:
        """The presets asked for, or those for models of this size."""
        if self.presets is not None:
            return self.presets
        if checkpoint.is_size(self.model):
            hidden = checkpoint.size_config(self.model).hidden_size
        else:
            hidden = checkpoint.read_config(checkpoint.resolve(self.model)).hidden_size
        # Half way between the two sizes that there are presets for.
        return "base" if hidden >= 576 else "small"


@dataclass(frozen=True)
class _Plan:
    """One task's run."""

    settings: FinetuneSettings
    preset: Preset
    start: str
    """Where it starts: ``encoder`` or ``mnli``."""

    @property
    def finished(self) -> bool:
        return (self.settings.output / METRICS).exists() and (self.settings.output / RECORD).exists()


def run_suite(settings: SuiteSettings) -> Path | None:
    """Finetune the tasks that are not finished yet, and write the scorecard after each.

    Returns:
        The suite's folder; None in other processes than the first.

    Raises:
        InputError: Something about settings, data, teachers or model is wrong, or the folder holds something else. All
            that can be known is checked before the first run.
        KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved.
        OSError: The folder cannot be written, or the disk is full.
    """
    presets = load_presets(settings.preset_name)
    plans = {name: _plan(settings, name, presets[name]) for name in settings.tasks}
    for name, plan in plans.items():
        _check_settled(plan)
        if plan.start == "mnli" and "mnli" not in plans and not (settings.output / "mnli" / RECORD).exists():
            raise InputError(
                f"{name} starts from MNLI's student, which is not in {settings.output}; add mnli to --tasks"
            )
    todo = {name: plan for name, plan in plans.items() if not plan.finished}
    compared = set()
    for name, plan in todo.items():
        for teacher in plan.settings.teacher:
            match_labels(Teacher.open(teacher), GLUE[name])
        # A model that is named by its size has no vocabulary yet.
        if plan.settings.teacher and plan.settings.hidden and not checkpoint.is_size(settings.model):
            decisive = (plan.settings.teacher, plan.settings.max_length)
            if decisive not in compared:
                check_hidden_states(plan.settings, settings.model)
            compared.add(decisive)
    _begin(settings)
    data = {name: _coverage(name, settings.data_dir) for name in todo}
    say(f"{settings.output}: {len(plans) - len(todo)} of {len(plans)} tasks finished; presets {settings.preset_name}")
    main = True
    for number, (name, plan) in enumerate(todo.items(), start=1):
        say(f"--- {name}, {number} of {len(todo)} to do ---")
        main = _run(plan, data[name]) and main
        if main:
            write_scorecard([read_suite(settings.output)], settings.output)
    if not main:
        return None
    if not todo:
        write_scorecard([read_suite(settings.output)], settings.output)
    return settings.output


def _plan(settings: SuiteSettings, name: str, preset: Preset) -> _Plan:
    """Settings of one task's run."""
    values = {key: value for key, value in preset.settings.items() if key not in DISTILLATION}
    if settings.teachers is not None:
        values |= {key: preset.settings[key] for key in DISTILLATION if key in preset.settings}
        values["teacher"] = (_teacher(settings.teachers, name),)
    start = "mnli" if settings.bells_and_whistles and name != "mnli" and preset.start == "mnli" else "encoder"
    chosen = FinetuneSettings(
        model=str(settings.output / "mnli") if start == "mnli" else settings.model,
        output=settings.output / name,
        task=name,
        data_dir=settings.data_dir,
        seeds=settings.seeds,
        precision=settings.precision,
        device=settings.device,
        **values,
    )
    return _Plan(chosen, preset, start)


def _teacher(teachers: str, name: str) -> str:
    """The task's own folder among the teachers, or the one teacher there is.

    Raises:
        InputError: There is neither.
    """
    root = Path(teachers)
    if not root.exists():
        return teachers  # a hub id, if anything
    for folder in (root / name, root / GLUE[name].folder, root):
        if (folder / checkpoint.CONFIG).is_file():
            return str(folder)
    raise InputError(f"{teachers}: no teacher for {name}; put a finetuned one in {root / name}")


def _check_settled(plan: _Plan) -> None:
    """Refuse a run that began, or ended, under other settings.

    Raises:
        InputError: The message names the setting.
    """
    path = plan.settings.output / SETTINGS
    if not path.exists():
        return
    now = plan.settings.to_dict()
    for name, before in read_json(path)["settings"].items():
        if now.get(name, before) != before:
            raise InputError(
                f"{path}: {name} was {before} when the run began, and is {now[name]} now; set it back, leave the task "
                "out with --tasks, or choose another output folder"
            )


def _begin(settings: SuiteSettings) -> None:
    """Note what all tasks have in common; a suite that is gone on with must agree.

    Raises:
        InputError: It does not, or the folder holds something else.
    """
    if not _is_first_process():
        return
    path = settings.output / SUITE
    common = {
        "model": settings.model,
        "weights_sha256": _weights_sha256(settings.model),
        "bells_and_whistles": settings.bells_and_whistles,
        "teachers": settings.teachers,
        "presets": settings.preset_name,
        "data_dir": None if settings.data_dir is None else str(settings.data_dir),
    }
    if not path.exists():
        if settings.output.is_file() or (settings.output.is_dir() and any(settings.output.iterdir())):
            raise InputError(f"{settings.output}: holds files, but no GLUE suite; choose another output folder")
        write_json(path, common)
        return
    former = read_json(path)
    for name in ("model", "weights_sha256", "bells_and_whistles", "teachers", "presets"):
        if former.get(name) != common[name]:
            raise InputError(
                f"{path}: {name} was {former.get(name)} when the suite began, and is {common[name]} now; "
                "set it back, or choose another output folder"
            )


def _is_first_process() -> bool:
    """Whether this is the only process, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def _weights_sha256(model: str) -> str | None:
    """Hash of a model's config and weights; None for a size name, whose weights are random."""
    if checkpoint.is_size(model):
        return None
    digest = hashlib.sha256()
    for file in sorted(checkpoint.resolve(model).iterdir()):
        if file.name == checkpoint.CONFIG or file.suffix in (".safetensors", ".bin"):
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _coverage(name: str, data_dir: Path | None) -> dict[str, Coverage]:
    """How much of each split is at hand; reading them all also finds what is malformed, hours before it is needed."""
    task = GLUE[name]
    splits = [split for split, file in task.splits.items() if file.labelled]
    return {split: coverage(task, split, len(load_split(task, split, data_dir))) for split in splits}


def _run(plan: _Plan, data: Mapping[str, Coverage]) -> bool:
    """Finetune one task, or go on with it, and record it; False in other processes than the first."""
    folder = plan.settings.output
    resume = (folder / SETTINGS).exists()
    # Before the run: hours later a hub may be out of reach, or a folder changed.
    teachers = {source: _weights_sha256(source) for source in plan.settings.teacher}
    try:
        result = finetune(dataclasses.replace(plan.settings, resume=resume))
    except KeyboardInterrupt:
        say(f"or, to go on with the suite, repeat: {shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}")
        raise
    if result is None:
        return False
    steps = plan.settings.epochs * len(plan.settings.seeds)
    record = {
        "task": plan.settings.task,
        "start": plan.start,
        "teachers_sha256": teachers,
        "settings": plan.settings.to_dict(),
        "source": plan.preset.source,
        "command": plan.settings.command(),
        "data": {split: {"rows": each.rows, "official": each.official} for split, each in data.items()},
        "examples": steps * data["train"].rows,
        "versions": _versions(),
        "finished": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    # The best seed's model lies in the folder itself.
    for model in folder.glob("seed-*/model"):
        shutil.rmtree(model)
    write_json(folder / RECORD, record)
    return True


def _versions() -> dict[str, str]:
    names = ("torch", "accelerate", "tokenizers", "numpy", "scikit-learn", "scipy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"squeezebert": __version__, "python": platform.python_version(), "machine": platform.machine(), **versions}


def search(
    settings: SuiteSettings, learning_rates: Sequence[float], dropouts: Sequence[float]
) -> dict[str, list[dict[str, Any]]]:
    """Try each learning rate with each dropout on each task, all else as in the presets, and write the figures down.

    What is finished is not run again, and a trial that diverges is noted as one and does not end the others.
    ``search.json`` and ``search.md`` appear in the output folder, with what former searches there have found; no model
    stays.

    Args:
        settings: Tasks, seeds, presets and so on; no teachers.
        learning_rates: Peaks to try.
        dropouts: Probabilities to try.

    Returns:
        Task -> what was tried, the best first; nothing in other processes than the first.

    Raises:
        InputError: As :func:`run_suite`.
    """
    presets = load_presets(settings.preset_name)
    plans = {name: _trials(_plan(settings, name, presets[name]), learning_rates, dropouts) for name in settings.tasks}
    for plan in itertools.chain(*plans.values()):
        _check_settled(plan)
    common = {"model": settings.model, "weights_sha256": _weights_sha256(settings.model)}
    path = settings.output / "search.json"
    found: dict[str, list[dict[str, Any]]] = {}
    if path.exists():
        former = read_json(path)
        for key, value in common.items():
            if former.get(key, value) != value:
                raise InputError(
                    f"{path}: {key} was {former[key]} when the search began, and is {value} now; "
                    "choose another output folder"
                )
        found = former["tasks"]
    data = {
        name: _coverage(name, settings.data_dir)
        for name, trials in plans.items()
        if not all(plan.finished or _failure(plan) for plan in trials)
    }
    for name, trials in plans.items():
        for plan in trials:
            if not plan.finished and not _failure(plan):
                try:
                    _run(plan, data[name])
                except DivergedError as error:
                    say(f"{plan.settings.output}: {error}")
                    if _is_first_process():
                        write_json(plan.settings.output / _FAILED, {"error": str(error)})
            # Only the figures are wanted.
            (plan.settings.output / checkpoint.WEIGHTS[0]).unlink(missing_ok=True)
        if not _is_first_process():
            continue
        tried = {
            (each["learning_rate"], each["dropout"]): each for each in [*found.get(name, []), *map(_result, trials)]
        }
        found[name] = sorted(tried.values(), key=lambda each: math.inf if each["mean"] is None else -each["mean"])
        write_json(path, {**common, "tasks": found})
        write_text(settings.output / "search.md", _search_table(settings, found))
    return {name: found[name] for name in settings.tasks} if _is_first_process() else {}


def _trials(base: _Plan, learning_rates: Sequence[float], dropouts: Sequence[float]) -> list[_Plan]:
    """A plan for each learning rate with each dropout."""
    return [
        dataclasses.replace(
            base,
            settings=dataclasses.replace(
                base.settings,
                output=base.settings.output / f"rate-{rate:g}-dropout-{dropout:g}",
                learning_rate=rate,
                dropout=dropout,
            ),
        )
        for rate, dropout in itertools.product(learning_rates, dropouts)
    ]


def _failure(trial: _Plan) -> bool:
    """Whether a trial has diverged."""
    return (trial.settings.output / _FAILED).exists()


def _result(trial: _Plan) -> dict[str, Any]:
    """What came of a trial, ready for JSON; of one that diverged nothing but its settings."""
    tried = {"learning_rate": trial.settings.learning_rate, "dropout": trial.settings.dropout}
    if _failure(trial):
        return {**tried, "mean": None, "sd": None, "seeds": list(trial.settings.seeds), "seconds": None}
    metrics = read_json(trial.settings.output / METRICS)
    split, figures = next(iter(metrics["mean"].items()))
    deviations = metrics["sd"] or {}
    return {
        **tried,
        "mean": figures[metrics["primary_metric"]],
        "sd": deviations.get(split, {}).get(metrics["primary_metric"]),
        "seeds": [each["seed"] for each in metrics["seeds"]],
        "seconds": sum(each["seconds"] for each in metrics["seeds"]),
    }


def _search_table(settings: SuiteSettings, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    lines = [
        f"# Search over learning rate and dropout: {settings.model}",
        "",
        f"Presets `{settings.preset_name}` for all else. Dev scores in points, best first; the same dev rows are what "
        "scorecards score.",
        "",
        "| task | metric | learning rate | dropout | mean | sd | seeds | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, tried in found.items():
        for each in tried:
            deviation = "" if each["sd"] is None else f"{100 * each['sd']:.2f}"
            mean = "diverged" if each["mean"] is None else f"{100 * each['mean']:.2f}"
            seconds = "" if each["seconds"] is None else f"{each['seconds']:.0f}"
            lines.append(
                f"| {name} | {GLUE[name].primary_metric} | {each['learning_rate']:g} | {each['dropout']:g} | "
                f"{mean} | {deviation} | {len(each['seeds'])} | {seconds} |"
            )
    return "\n".join(lines) + "\n"
