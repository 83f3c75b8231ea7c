"""Who can be measured: this package's engines, and the peers in the forms in which they are fastest.

Which form and which quantisation suit a runtime differs (docs/benchmarks.md): so SqueezeBERT takes part in two forms,
``conv`` (grouped convolutions, as ``transformers`` writes it) and ``split`` (one matrix product per group), and the
faster one counts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from squeezebert.bench.harness import cpu_features
from squeezebert.errors import InputError

Stack = Literal["native", "torch", "transformers", "onnxruntime", "openvino"]

STACKS: dict[Stack, str] = {
    "native": "squeezebert, native engine",
    "torch": "squeezebert, torch engine",
    "transformers": "transformers eager",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
"""Name for people of what runs a model."""
MODELS = {
    "bert": "BERT-base",
    "minilm": "MiniLM-L6 shape",
    "distilbert": "DistilBERT",
    "mobilebert": "MobileBERT",
    "squeezebert": "SqueezeBERT",
}
"""Name for people of a network."""
PACKAGES: dict[Stack, tuple[str, ...]] = {
    "native": (),
    "torch": ("torch",),
    "transformers": ("torch", "transformers"),
    "onnxruntime": ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("torch", "transformers", "openvino", "nncf"),
}
"""What a stack needs, the packages that make its files counted in."""


_REFERENCE = "native-reference"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One line of the table."""

    stack: Stack
    model: str
    """A key of :data:`MODELS`."""
    precision: str
    """int8, bf16 or fp32."""
    form: str | None = None
    """Of SqueezeBERT in another runtime: conv or split."""
    instruction_set: str | None = None
    """Of the native engine."""

    @property
    def ours(self) -> bool:
        """Whether this package runs it."""
        return self.stack in ("native", "torch")

    @property
    def key(self) -> str:
        """What ``--contenders`` calls it."""
        if self.ours:
            return "-".join(filter(None, (self.stack, self.instruction_set)))
        return "-".join(filter(None, (self.stack, self.precision, self.model, self.form)))

    @property
    def title(self) -> str:
        """Name for people."""
        if self.ours:
            return f"{STACKS[self.stack]}, {self.instruction_set or self.precision}"
        model = MODELS[self.model] if self.form is None else f"{MODELS[self.model]} ({self.form})"
        stack = STACKS[self.stack] if self.stack == "transformers" else f"{STACKS[self.stack]} {self.precision}"
        return f"{stack}, {model}"


def contenders(instruction_sets: Sequence[str]) -> list[Contender]:
    """Everyone there is, in the order of the table.

    Args:
        instruction_sets: The native engine's, of those that can run here; empty: this installation has no such engine.
    """
    # Where there is no engine, one line says so.
    names: Sequence[str | None] = instruction_sets or [None]
    found = [Contender(stack="native", model="squeezebert", precision="int8", instruction_set=name) for name in names]
    found.append(Contender(stack="torch", model="squeezebert", precision="fp32"))
    found += [
        Contender(stack="transformers", model=model, precision="fp32")
        for model in ("bert", "distilbert", "mobilebert", "squeezebert")
    ]
    precisions: dict[Stack, tuple[str, ...]] = {"onnxruntime": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8")}
    exported = [("bert", None), ("minilm", None), ("squeezebert", "conv"), ("squeezebert", "split")]
    found += [
        Contender(stack=stack, model=model, precision=precision, form=form)
        for stack, formats in precisions.items()
        for precision in formats
        for model, form in exported
    ]
    return found


def choose(all_: Sequence[Contender], patterns: Sequence[str]) -> list[Contender]:
    """Those whose keys match a pattern (``onnxruntime-*``), in the table's order; no pattern: all.

    The native engine's reference, a hundred times slower than its kernels, takes part only where it is named.

    Raises:
        InputError: A pattern matches none.
    """

    def matches(contender: Contender, pattern: str) -> bool:
        return contender.key == pattern or (contender.key != _REFERENCE and fnmatchcase(contender.key, pattern))

    for pattern in patterns:
        if not any(matches(each, pattern) for each in all_):
            keys = " ".join(each.key for each in all_)
            raise InputError(f"--contenders: nobody is called {pattern!r}; there are {keys}")
    return [each for each in all_ if any(matches(each, pattern) for pattern in patterns or "*")]


def why_not(contender: Contender) -> str | None:
    """Why a contender cannot run here; None: it can."""
    if contender.stack == "native" and contender.instruction_set is None:
        return "this installation has no native engine"
    for package in PACKAGES[contender.stack]:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install 'squeezebert[bench]'"
    if contender.precision == "bf16" and not {"avx512_bf16", "amx_bf16"} & set(cpu_features()):
        return "not on this CPU: it has no bf16"
    return None
