"""Recipes: everything that decides a pretraining run but its corpus and the size of its model, in a TOML file.

The sentence after each field is its explanation for people. No torch here.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from squeezebert.data.masking import Masking
from squeezebert.errors import InputError
from squeezebert.training.schedule import Phase

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class PhaseRecipe:
    """A stretch of training on rows of one length, with its own warm-up from zero.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    steps: int
    """Optimizer steps."""
    length: int
    """Tokens of a row, special ones included."""
    batch_size: int
    """Rows of an optimizer step, over all processes together."""
    learning_rate: float
    """Learning rate at its peak."""
    warmup_proportion: float = 0.1
    """Share of the phase's steps during which the learning rate rises from zero, 0 to 1."""
    power: float = 1.0
    """Exponent of the polynomial along which the learning rate then falls to zero."""
    micro_batch_size: int = 32
    """Rows that a process computes at once; less needs less memory and changes no result."""
    sentence_order_weight: float | None = None
    """Weight of the sentence order in this phase; None: the recipe's."""
    overlap: int = 0
    """Most tokens at the end of a pair's earlier passage that its later one repeats, at first: the place where the two
    meet should speak clearly. 0: passages never overlap."""
    overlap_steps: int = 0
    """Steps, from the first of the phase, over which the share of the pairs that overlap falls from all to none,
    evenly; they may be more than the phase has."""

    def __post_init__(self) -> None:
        _check("length", self.length, self.length >= 8, "at least 8")
        for name in ("overlap", "overlap_steps"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        if (self.overlap == 0) != (self.overlap_steps == 0):
            raise InputError("recipe: overlap and overlap_steps go together; give both, or neither")
        for name in ("batch_size", "micro_batch_size"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate < 1, "above 0 and below 1")
        self.schedule()

    @property
    def tokens(self) -> int:
        """Tokens of the phase, the few of padding counted in."""
        return self.steps * self.batch_size * self.length

    def schedule(self) -> Phase:
        """The learning rates of the phase."""
        return Phase(
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup_proportion=self.warmup_proportion,
            power=self.power,
        )


@dataclass(frozen=True, kw_only=True)
class DistillationRecipe:
    """What a student encoder takes over from a teacher; :mod:`squeezebert.training.encoder_distillation` has the terms.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    embedding: float = 1.0
    """Weight of the embeddings' output."""
    hidden: float = 1.0
    """Weight of the layers' outputs, all together."""
    relations: float = 0.0
    """Weight of the self-attention relations of the last layer."""
    sentence: float = 0.0
    """Weight of the pooled vector, which comes to hold the mean of the teacher's last vectors. An embedder of sentences
    says most there; masked tokens alone leave the first token, from which a classifier reads, nearly empty."""
    mlm: float = 0.0
    """Weight of the masked tokens; 0: nothing is masked."""
    sentence_order: float = 0.0
    """Weight of the passages' order; it needs the masked tokens, too."""
    layers: tuple[int, ...] = ()
    """The teacher's layer for each of the student's, from 1, 0 for none; empty: spread evenly."""
    last_layer: float = 2.0
    """Weight of the last compared layer, where each of the others has 1."""
    relation_heads: int = 0
    """Heads into which queries, keys and values are cut; 0: as many as the teacher has."""
    embedding_steps: int = 0
    """Optimizer steps of a first stage on the embeddings alone, with random tokens."""
    embedding_tokens: int = 8192
    """Tokens of a step of that stage."""
    embedding_learning_rate: float = 1e-2
    """Learning rate of that stage at its peak."""

    def __post_init__(self) -> None:
        for name in ("embedding", "hidden", "relations", "sentence", "mlm", "sentence_order"):
            value = getattr(self, name)
            _check(f"distillation.{name}", value, 0 <= value < float("inf"), "at least 0")
        for name in ("relation_heads", "embedding_steps"):
            _check(f"distillation.{name}", getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _check("distillation.last_layer", self.last_layer, 0 < self.last_layer < float("inf"), "above 0")
        _check("distillation.embedding_tokens", self.embedding_tokens, self.embedding_tokens >= 1, "at least 1")
        rate = self.embedding_learning_rate
        _check("distillation.embedding_learning_rate", rate, 0 < rate < 1, "above 0 and below 1")
        if self.sentence_order and not self.mlm:
            raise InputError("recipe: distillation.sentence_order needs distillation.mlm above 0")
        if not self.embedding + self.hidden + self.relations + self.sentence:
            raise InputError("recipe: distillation needs a weight above 0 for embedding, hidden, relations or sentence")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to pretrain.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    description: str
    """What the recipe is for, and what it costs."""
    phases: tuple[PhaseRecipe, ...]
    """What is done one after the other."""
    optimizer: Literal["lamb", "adamw"] = "lamb"
    """How gradients become updates."""
    bias_correction: bool = True
    """LAMB as NVIDIA's; false: as in ALBERT's code."""
    adapt_undecayed: bool = False
    """LAMB: a trust ratio also for biases and norms, which do not decay."""
    weight_decay: float = 0.01
    """Decoupled decay of weight matrices; biases and norms never decay."""
    beta2: float = 0.999
    """Decay of the second moment."""
    clip: float = 1.0
    """Largest global norm of the gradient, to which it is scaled down; 0 leaves it alone."""
    dropout: float = 0.1
    """Dropout probability of hidden states and attention, 0 up to but not including 1."""
    seed: int = 42
    """Seed of weights, order, masks and dropout."""
    masking_rate: float = 0.15
    """Share of the tokens that are masked."""
    whole_word: bool = False
    """Mask all pieces of a word or none."""
    max_ngram: int = 1
    """Longest run of tokens masked together, with probability proportional to 1/n."""
    mlm_only: bool = False
    """Masked tokens alone, without sentence order."""
    sentence_order_weight: float = 1.0
    """Weight of the sentence order beside the masked tokens' 1. The encoder's gradient from it is a small part of the
    other's: where few rows are seen, it is lost in that one's noise unless it weighs more."""
    both_orders: bool = False
    """Train on each pair of passages in both orders, in neighbouring rows: half as many different passages a step, and
    a gradient of sentence order without what a pair says in either order. At first that was half of it and more; what
    it is worth by itself no run has shown."""
    short_probability: float = 0.1
    """Share of the groups of rows that are given a shorter length."""
    evaluate_every: int = 500
    """Optimizer steps between scores on held-out text; each phase ends with one, too."""
    held_out_rows: int = 2048
    """Rows of held-out text that are scored each time."""
    save_every: int = 500
    """Optimizer steps between training states, from which --resume goes on."""
    keep: int = 2
    """Newest training states that stay on disk."""
    log_every: int = 10
    """Optimizer steps between looks at loss and speed."""
    divergence: float = 2.0
    """Rise of the training loss (of masked tokens, where there is sentence order) above its lowest, in nats, at which
    the run stops; 0: it never does."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of activations; auto takes bf16 on a GPU that has it, and on a CPU where a trial is faster."""
    compile: bool = False
    """Let torch.compile write the kernels."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass: a third more time, much less memory."""
    groups: int = 0
    """Groups into which the layers of a dense model to go on from, a converted BERT, are cut; 0 cuts none."""
    closing: float = 0.7
    """Share of all steps over which what the groups will not have fades, 0 to 1."""
    distillation: DistillationRecipe | None = None
    """What is learned from a teacher, and of masked tokens and sentence order beside it; none without one."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise InputError("recipe: phases must hold at least one phase")
        for name in ("evaluate_every", "held_out_rows", "save_every", "keep", "log_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "clip", "seed", "divergence"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < float("inf"), "at least 0")
        for name in ("dropout", "beta2"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        # torch's generators take 64 bits.
        _check("seed", self.seed, self.seed < 2**63, "below 2 ** 63")
        if self.optimizer == "lamb" and not self.weight_decay and not self.adapt_undecayed:
            raise InputError(
                "recipe: lamb has no trust ratio where weight_decay is 0, as in NVIDIA's; "
                "set adapt_undecayed=true, or optimizer=adamw"
            )
        weights = [self.sentence_order_weight, *map(self.order_weight, range(len(self.phases)))]
        for weight in weights:
            _check("sentence_order_weight", weight, 0 < weight < float("inf"), "above 0")
        if any(weight != 1 for weight in weights) and (self.mlm_only or self.distillation is not None):
            raise InputError(
                "recipe: sentence_order_weight is for masked tokens and sentence order without a teacher; "
                "leave it at 1 with mlm_only, and beside a teacher set distillation.sentence_order"
            )
        if self.both_orders and self.predicts != "pretraining":
            raise InputError("recipe: both_orders is for runs that learn the sentence order")
        if any(phase.overlap for phase in self.phases) and self.predicts != "pretraining":
            raise InputError("recipe: overlap is for runs that learn the sentence order")
        if any(phase.overlap for phase in self.phases) and self.divergence:
            raise InputError("recipe: the loss rises while passages cease to overlap; set divergence=0")
        for index, phase in enumerate(self.phases):
            if self.both_orders and phase.batch_size % 2:
                raise InputError(f"recipe: both_orders needs an even phases.{index}.batch_size, not {phase.batch_size}")
        _check("groups", self.groups, self.groups == 0 or self.groups >= 2, "0, or at least 2")
        _check("closing", self.closing, 0 <= self.closing <= 1, "within 0..1")
        if self.closing != 0.7 and not self.groups:
            raise InputError("recipe: closing goes with groups; give their number, or leave it out")
        if self.groups and self.distillation is not None and self.distillation.embedding_steps:
            raise InputError(
                "recipe: a model that is cut into groups has embeddings already; set distillation.embedding_steps=0"
            )
        if self.groups and self.divergence:
            raise InputError("recipe: the loss rises while groups close; set divergence=0")
        if self.groups and self.compile:
            raise InputError("recipe: compile would begin anew with each step in which groups close; leave it out")
        _check("short_probability", self.short_probability, 0 <= self.short_probability <= 1, "within 0..1")
        self.masking()

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def tokens(self) -> int:
        """Tokens of all phases, the few of padding counted in."""
        return sum(phase.tokens for phase in self.phases)

    @property
    def predicts(self) -> Literal["encoder", "masked_lm", "pretraining"]:
        """The head that is trained, a key of :data:`squeezebert.model.heads.HEADS`."""
        if self.distillation is not None:
            if self.distillation.sentence_order:
                return "pretraining"
            return "masked_lm" if self.distillation.mlm else "encoder"
        return "masked_lm" if self.mlm_only else "pretraining"

    def order_weight(self, phase: int) -> float:
        """Weight of the sentence order in a phase, counted from 0."""
        own = self.phases[phase].sentence_order_weight
        return self.sentence_order_weight if own is None else own

    def masking(self) -> Masking:
        """How masked tokens are chosen."""
        return Masking(rate=self.masking_rate, whole_word=self.whole_word, max_ngram=self.max_ngram)

    def to_dict(self) -> dict[str, Any]:
        """What decides the outcome, by name, ready for JSON: all but how often it is saved and shown."""
        values = dataclasses.asdict(self)
        for name in ("description", "save_every", "keep", "log_every"):
            del values[name]
        if not self.groups:
            del values["groups"], values["closing"]
        if self.distillation is None:
            del values["distillation"]
        else:
            values["distillation"]["layers"] = list(self.distillation.layers)
        phases = [
            {name: value for name, value in phase.items() if value or name not in _NEW_IN_PHASES}
            for phase in values["phases"]
        ]
        return values | {"phases": phases}


_NEW_IN_PHASES = ("sentence_order_weight", "overlap", "overlap_steps")
"""Left out where they change nothing, so that runs which began without them can go on."""


def _check(name: str, value: float, fine: bool, rule: str) -> None:
    if not fine:
        raise InputError(f"recipe: {name} must be {rule}, not {value}")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    files = resources.files("squeezebert.recipes").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".toml"))


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name: One of :func:`recipe_names`, or the path of a TOML file.
        changes: ``key=value`` each, where a key is a field's name or ``phases.0.steps``, and a value is TOML; quotes
            around a string may be left out.

    Raises:
        InputError: There is no such recipe; or it, or a change, is wrong: the message names the key.
    """
    if name in recipe_names():
        where, text = name, (resources.files("squeezebert.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        try:
            where, text = name, Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{name}: not a text file in UTF-8; save it as UTF-8") from None
    else:
        raise InputError(f"recipe {name!r} is unknown; use one of {', '.join(recipe_names())}, or a .toml file")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not valid TOML ({error})") from None
    for change in changes:
        _apply(table, change)
    recipe: Recipe = _build(Recipe, table, "")
    return recipe


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise InputError(f"--set {change}: write key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    target: Any = table
    *parents, last = key.strip().split(".")
    for number, part in enumerate(parents):
        try:
            target = target[int(part)] if isinstance(target, list) else target[part]
        except (KeyError, ValueError, IndexError, TypeError):
            raise InputError(f"--set {key}: there is no {'.'.join(parents[: number + 1])} in the recipe") from None
    if not isinstance(target, dict):
        raise InputError(f"--set {key}: name a field, such as phases.0.steps")
    target[last] = value


def _build(cls: Any, table: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass of a table, whose names and types must be the dataclass's."""
    kinds = get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in table:
        if name not in known:
            raise InputError(f"recipe: {where}{name} is unknown; the names are {', '.join(known)}")
    for name, field in known.items():
        if name not in table and field.default is dataclasses.MISSING:
            raise InputError(f"recipe: {where}{name} is missing")
    return cls(**{name: _value(kinds[name], value, where + name) for name, value in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) is types.UnionType and not dataclasses.is_dataclass(get_args(kind)[0]):
        return _value(get_args(kind)[0], value, where)
    if get_origin(kind) is types.UnionType:
        if not isinstance(value, dict):
            raise InputError(f"recipe: {where} must be a table, [{where}]")
        return _build(get_args(kind)[0], value, f"{where}.")
    if get_origin(kind) is tuple and get_args(kind)[0] is int:
        if not isinstance(value, list) or not all(type(each) is int for each in value):
            raise InputError(f"recipe: {where} must be a list of whole numbers, not {value!r}")
        return tuple(value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise InputError(f"recipe: {where} must be a list of tables, [[{where}]] each")
        return tuple(_build(get_args(kind)[0], each, f"{where}.{index}.") for index, each in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"recipe: {where} must be one of {', '.join(get_args(kind))}, not {value!r}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
        raise InputError(f"recipe: {where} must be {names[kind]}, not {value!r}")
    return value
