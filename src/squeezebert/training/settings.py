"""Settings of a finetuning run; the sentence after each field is its ``--help`` text. No torch here."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import operator
import shlex
import textwrap
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from squeezebert.errors import InputError

Precision = Literal["auto", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]

OF_DATA = ("task", "data_dir", "train", "dev", "text_column", "pair_column", "label_column", "unlabelled")
"""Settings that name data in files."""


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Everything that decides a finetuning run.

    Raises:
        InputError: A value is of the wrong type or out of range, or two do not go together; the message names the
            field.
    """

    model: str
    """Where training starts: a folder, a hub id, or a size name (random weights)."""
    output: Path
    """Folder for the finetuned model and everything about the run."""
    task: str | None = None
    """GLUE task to learn, such as sst2; else give --train."""
    data_dir: Path | None = None
    """Folder of the official GLUE files, the root or the task's own; without it the hub's copy is read."""
    train: Path | None = None
    """Table to learn from: .csv, .tsv, .jsonl or .parquet."""
    dev: Path | None = None
    """Table to choose the best checkpoint by; without it a tenth of --train is held out."""
    text_column: str = "text"
    """Column of the text in the tables."""
    pair_column: str | None = None
    """Column of the second text, to learn from pairs of texts."""
    label_column: str = "label"
    """Column of the label in the tables."""
    regression: bool = False
    """The label is a number to predict."""
    multi_label: bool = False
    """The label is any number of classes, as a list or separated by semicolons."""
    teacher: tuple[str, ...] = ()
    """Finetuned classifiers to learn from, folders or hub ids; of several the mean opinion counts."""
    alpha: float = 0.5
    """Share of the teachers in the loss, 0 to 1; the rest is the labels'."""
    temperature: float = 1.0
    """Temperature that softens what student and teachers say of classes; above 1 it shows more of the lesser ones."""
    hidden: float = 0.0
    """Weight of the distance between the hidden states of student and first teacher, which must have the student's
    vocabulary and width; 0 leaves them alone."""
    unlabelled: Path | None = None
    """Table of further texts, under the same column names, that only the teachers label."""
    groups: int = 0
    """Groups into which the layers of a dense model, such as a converted BERT, are cut during training; 0 cuts none."""
    closing: float = 0.7
    """Share of the steps over which what the groups will not have fades, 0 to 1; all at once with 0."""
    vocab: str | None = None
    """Vocabulary in place of the model's own: a file, a folder or a hub id."""
    epochs: int = 3
    """Passes over the training data."""
    batch_size: int = 16
    """Examples in an optimizer step, over all processes together."""
    learning_rate: float = 3e-5
    """Learning rate at its peak."""
    warmup_proportion: float = 0.1
    """Share of the steps during which the learning rate rises from zero, 0 to 1."""
    power: float = 1.0
    """Exponent of the polynomial along which the learning rate then falls to zero; 1 is a straight line."""
    dropout: float = 0.1
    """Dropout probability of hidden states, attention and classifier, 0 up to but not including 1."""
    weight_decay: float = 0.0
    """Decoupled decay of weight matrices; biases and norms never decay."""
    clip: float = 1.0
    """Largest global norm of the gradient, to which it is scaled down; 0 leaves it alone."""
    max_length: int | None = None
    """Tokens kept of a text or pair; without it as many as the model takes."""
    seeds: tuple[int, ...] = (42,)
    """Seeds of order, dropout and new weights; one run each, the best one is kept as the result."""
    patience: int = 0
    """Evaluations without a better score after which a run stops; 0 never stops early."""
    evaluate_every: float = 1.0
    """Epochs between evaluations, in fractions too."""
    save_every: int = 500
    """Optimizer steps between training states, from which --resume goes on."""
    accumulation: int = 1
    """Parts into which a process cuts its share of a batch, to need less memory."""
    precision: Precision = "auto"
    """Number format of activations; auto takes bf16 where a GPU has it, else fp32."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    resume: bool = False
    """Go on with an interrupted run in --output, under the same settings."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _convert(name, kind, getattr(self, name)))
        if self.task is not None and self.train is not None:
            raise InputError("settings: give either task, for GLUE, or train, for a table of your own; not both")
        if self.task is not None:
            for name in ("dev", "pair_column", "regression", "multi_label"):
                if getattr(self, name):
                    raise InputError(f"settings: {name} goes with train, not with a GLUE task; leave it out")
            for name, usual in (("text_column", "text"), ("label_column", "label")):
                if getattr(self, name) != usual:
                    raise InputError(f"settings: {name} goes with train, not with a GLUE task; leave it out")
        elif self.data_dir is not None:
            raise InputError("settings: data_dir goes with a GLUE task; name it with task")
        self._check_teachers()
        if self.regression and self.multi_label:
            raise InputError("settings: regression and multi_label exclude each other")
        for name in ("epochs", "batch_size", "save_every", "accumulation"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate < 1, "above 0 and below 1")
        _check("warmup_proportion", self.warmup_proportion, 0 <= self.warmup_proportion <= 1, "within 0..1")
        _check("dropout", self.dropout, 0 <= self.dropout < 1, "at least 0 and below 1")
        _check("evaluate_every", self.evaluate_every, 0 < self.evaluate_every < float("inf"), "above 0")
        for name in ("power", "weight_decay", "clip", "patience"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < float("inf"), "at least 0")
        _check("groups", self.groups, self.groups == 0 or self.groups >= 2, "0, or at least 2")
        _check("closing", self.closing, 0 <= self.closing <= 1, "within 0..1")
        if self.closing != 0.7 and not self.groups:
            raise InputError("settings: closing goes with groups; give their number, or leave it out")
        if self.patience and self.groups:
            raise InputError("settings: patience would stop before the groups are closed; leave it out")
        # Three special tokens frame a pair; below five nothing of it would be left.
        if self.max_length is not None:
            _check("max_length", self.max_length, self.max_length >= 5, "at least 5")
        _check("accumulation", self.accumulation, self.accumulation <= self.batch_size, "no more than batch_size")
        if len(set(self.seeds)) < max(1, len(self.seeds)) or not all(0 <= seed < 1 << 64 for seed in self.seeds):
            raise InputError(
                f"settings: seeds must be different whole numbers from 0 to 2**64 - 1, not {list(self.seeds)}"
            )

    def _check_teachers(self) -> None:
        if not self.teacher:
            for name, usual in (("alpha", 0.5), ("temperature", 1.0), ("hidden", 0.0), ("unlabelled", None)):
                if getattr(self, name) != usual:
                    raise InputError(f"settings: {name} goes with a teacher; name one with teacher, or leave it out")
        _check("alpha", self.alpha, 0 <= self.alpha <= 1, "within 0..1")
        _check("temperature", self.temperature, 0 < self.temperature < float("inf"), "above 0")
        _check("hidden", self.hidden, 0 <= self.hidden < float("inf"), "at least 0")
        if self.hidden and self.alpha == 0:
            raise InputError("settings: hidden goes with the teachers' share; raise alpha above 0, or leave hidden out")
        if self.unlabelled is not None and self.alpha == 0:
            raise InputError("settings: unlabelled texts teach nothing while alpha is 0; raise it, or leave them out")

    def to_dict(self) -> dict[str, Any]:
        """What decides the outcome, by name, ready for JSON: all but where it goes and how often it is saved."""
        values = dataclasses.asdict(self)
        for name in ("output", "resume", "save_every"):
            del values[name]
        if not self.teacher:
            for name in ("teacher", "alpha", "temperature", "hidden", "unlabelled"):
                del values[name]
        if not self.groups:
            del values["groups"], values["closing"]
        return {
            name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def command(self) -> str:
        """What starts this run: a command line, or Python where the data came from there."""
        changed = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default and field.name != "resume"
        }
        if self.task is None and self.train is None:
            model = changed.pop("model")
            changed["output"] = str(self.output)
            arguments = "".join(f", {name}={value!r}" for name, value in changed.items())
            return f"squeezebert.Classifier({model!r}).fit(texts, labels{arguments})"
        words = ["squeezebert", "finetune"]
        for name, value in changed.items():
            words.append("--" + name.replace("_", "-"))
            if value is not True:
                words += [str(each) for each in (value if isinstance(value, tuple) else (value,))]
        return shlex.join(words)


def _convert(name: str, kind: Any, value: Any) -> Any:
    """A field's value as its type has it: Python callers also give strings for paths, and numbers of NumPy.

    Raises:
        InputError: The value is nothing of that type.
    """
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(part for part in get_args(kind) if part is not types.NoneType)
    if get_origin(kind) is Literal:
        _check(name, value, value in get_args(kind), f"one of {', '.join(get_args(kind))}")
        return value
    convert, what = _CONVERSIONS[kind]
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"settings: {name} must be {what}, not {' '.join(repr(value).split()):.80}") from None


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _number(value: Any) -> float:
    if isinstance(value, (bool, str)):
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    # NumPy has a type of its own.
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError
    return bool(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(Path(value))


_CONVERSIONS: dict[Any, tuple[Any, str]] = {
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    bool: (_truth, "True or False"),
    str: (_text, "a string"),
    Path: (Path, "a path"),
    tuple[int, ...]: (
        lambda values: tuple(_whole(value) for value in values),
        "a list of whole numbers, such as [1, 2, 3]",
    ),
    tuple[str, ...]: (
        lambda values: tuple(map(_text, [values] if isinstance(values, (str, Path)) else values)),
        "a list of strings",
    ),
}
"""Type -> what converts to it, and what it is called."""


def _check(name: str, value: Any, fine: bool, rule: str) -> None:
    if not fine:
        raise InputError(f"settings: {name} must be {rule}, not {value}")


def describe_fields(settings: type) -> dict[str, str]:
    """Read the sentence that follows each field of a dataclass in its source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(settings))).body[0]
    assert isinstance(body, ast.ClassDef)
    sentences = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            sentences[field.target.id] = str(ast.literal_eval(text.value))
    return sentences
