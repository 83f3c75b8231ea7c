"""The native engine's arithmetic in NumPy: the oracle that it is tested against, and what runs where it is missing.

Follows native/src/ops/*.h formula by formula: int8 activations with one scale per token and block of channels, int32
sums, attention on whole numbers. Integers come out the same; fp32 steps are done in float64 and rounded where the
engine stores fp32, so results differ from the engine's by rounding only. (A rounding that falls on the border between
two levels of a later quantisation moves that value by a level, as anywhere in quantised arithmetic.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from squeezebert import artifact
from squeezebert.files import read_json
from squeezebert.runtime.engines.quantized import Origin, QuantizedEngine, quantize_checkpoint

if TYPE_CHECKING:
    from squeezebert.data.collate import Batch

Floats = NDArray[np.float32]

# Least value of each activation's output, negated; see native/src/ops/quantize.h.
_FLOORS = {"gelu": 0.1701, "gelu_new": 0.1701, "silu": 0.2785, "relu": 0.0}


class Quantized(NamedTuple):
    """``scale * (q + zero)`` stands for the values. *Shapes:* q ``[N, blocks, size]``, others ``[N, blocks, 1]``."""

    q: NDArray[np.int64]
    scale: Floats
    zero: NDArray[np.int64]


def quantize(x_NC: Floats, blocks: int, floor: float = 0.0) -> Quantized:
    """Quantise rows of activations; see native/src/ops/quantize.h.

    Args:
        x_NC: ``[N, C]``.
        blocks: Equal parts of the channels, each with a scale of its own.
        floor: How far below zero values can lie; 0: as far as above.
    """
    x = x_NC.reshape(len(x_NC), blocks, -1)
    size = x.shape[2]
    magnitude = np.abs(x) if floor == 0 else x
    top = np.maximum(magnitude.max(axis=2, keepdims=True), np.float32(0))
    share = np.float32(np.float32(size) / np.float32(12) if size > 192 else 16) / np.float32(size)
    limit = _lane_sum(np.abs(x)) * share
    rest = np.where(magnitude <= limit, np.maximum(magnitude, 0), 0).max(axis=2, keepdims=True).astype(np.float32)
    top = np.where(top > limit, np.maximum(rest, top * np.float32(1 / 4096)), top).astype(np.float32)
    span = (top + np.float32(floor)).astype(np.float32)
    levels = np.float32(127 if floor == 0 else 252)
    empty = ~(span > 1e-30)
    with np.errstate(divide="ignore"):
        inverse = np.where(empty, np.float32(0), levels / span).astype(np.float32)
    below = np.ceil(np.float32(floor) * inverse)
    shift = np.zeros_like(below) if floor == 0 else np.where(empty, 0, below - 127)
    q = np.rint((x * inverse).astype(np.float32)) + shift
    scale = np.where(empty, np.float32(0), span / levels).astype(np.float32)
    return Quantized(q.astype(np.int64), scale, (-shift).astype(np.int64))


def _lane_sum(x: Floats) -> Floats:
    """Sum over the last axis in the engine's order: sixteen partial sums, then halves. Keeps the axis."""
    padded = np.zeros((*x.shape[:-1], -(-x.shape[-1] // 16) * 16), np.float32)
    padded[..., : x.shape[-1]] = x
    lanes = np.zeros((*x.shape[:-1], 16), np.float32)
    for start in range(0, padded.shape[-1], 16):
        lanes += padded[..., start : start + 16]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes


# What the engine's gelu adds to max(x, 0), as a polynomial in min(|x|, c); see native/src/ops/activation.h.
_GELU_END = 3.9
_GELU = (
    0, -0.49932950735092163, 0.3851953446865082, 0.05218341946601868, -0.14727507531642914, 0.06046706438064575,
    -0.0104904780164361, 0.0006865545292384923,
)  # fmt: skip


def activate(name: str, x: NDArray[np.float64]) -> Any:
    """Apply an activation: gelu by the engine's polynomial, the others exactly."""
    if name == "gelu":
        a = np.minimum(np.abs(x), _GELU_END)
        return np.maximum(x, 0) + np.polynomial.polynomial.polyval(a, _GELU)
    if name == "gelu_new":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if name == "silu":
        return x / (1 + np.exp(-x))
    if name == "relu":
        return np.maximum(x, 0)
    return np.tanh(x) if name == "tanh" else x


def grouped_linear(
    x: Quantized, weight: NDArray[np.int8], scale: Floats, bias: Floats, groups: int, activation: str = ""
) -> Floats:
    """Grouped position-wise product; see native/src/ops/grouped_linear.h.

    Args:
        x: Activations; each group reads the same number of blocks.
        weight: ``[out, in / groups]``.
        scale: ``[out]``.
        bias: ``[out]``.
        groups: Blocks of channels.
        activation: Its name; empty: none.

    Returns:
        ``[N, out]``.
    """
    count, blocks, size = x.q.shape
    per_group = blocks // groups
    out = len(weight) // groups
    y = np.zeros((count, groups, out))
    weights = weight.astype(np.float64).reshape(groups, out, per_group, size)
    for group in range(groups):
        for part in range(per_group):
            block = group * per_group + part
            # Exact: whole numbers far below 2^53.
            sums = (x.q[:, block] + x.zero[:, block]).astype(np.float64) @ weights[group, :, part].T
            y[:, group] += sums * x.scale[:, block]
    activated: Floats = activate(activation, y.reshape(count, -1) * scale + bias).astype(np.float32)
    return activated


def attention(q_HTD: Floats, k_HTD: Floats, v_HTD: Floats) -> Floats:
    """Attention of one sequence; see native/src/ops/attention.h. *Shape:* ``[H, T, D]`` each, and the result."""
    tokens, size = q_HTD.shape[1:]
    k, k_scale = _whole(k_HTD, 127, axis=1)
    v, v_scale = _whole(v_HTD, 127, axis=1)
    q, q_scale = _whole((q_HTD * k_scale).astype(np.float32), min(_MOST // size, 32767), axis=2)
    scores = (q @ k.transpose(0, 2, 1)) * q_scale / math.sqrt(size)
    bits = min(15, int(math.log2(_MOST // tokens)))
    e = np.exp(scores - scores.max(axis=-1, keepdims=True)) * 2.0**bits
    p = np.minimum(np.rint(e), 32767)
    context: Floats = ((p @ v) / e.sum(axis=-1, keepdims=True) * v_scale).astype(np.float32)
    return context


# The largest sum of absolute values that fits in int32 with factors up to 127.
_MOST = (2**31 - 1) // 127


def _whole(x: Floats, level: int, axis: int) -> tuple[NDArray[np.float64], Floats]:
    """Whole numbers up to ``level`` and their scale, one for all of ``axis``."""
    top = np.abs(x).max(axis=axis, keepdims=True)
    some = top > 1e-30
    inverse = np.divide(np.float32(level), top, out=np.zeros_like(top), where=some)
    scale = np.where(some, top / level, 0).astype(np.float32)
    return np.rint((x * inverse).astype(np.float32)).astype(np.float64), scale


def layer_norm(x_NC: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """LayerNorm of each row. *Shape:* ``[N, C]``."""
    x = x_NC.astype(np.float64)
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    normal: Floats = (centred / np.sqrt(variance + eps) * weight + bias).astype(np.float32)
    return normal


class ReferenceModel:
    """An int8 model in NumPy.

    Args:
        config: Content of ``config.json``.
        tensors: Content of ``model.safetensors``.
    """

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        self.tensors = tensors

    @classmethod
    def load(cls, folder: str | Path) -> ReferenceModel:
        """Load an exported folder; what is in it is trusted."""
        return cls(read_json(Path(folder) / artifact.CONFIG), load_file(Path(folder) / artifact.WEIGHTS))

    def run(
        self, ids_T: NDArray[Any], types_T: NDArray[Any] | None = None, gaps_M: Sequence[int] = ()
    ) -> dict[str, Floats]:
        """Run one sequence.

        Args:
            ids_T: Token ids.
            types_T: Segment of each token; None: all 0.
            gaps_M: Places whose ``vocabulary`` scores are wanted of a masked language model.

        Returns:
            ``hidden`` ``[T, C]``; ``hidden_states`` ``[L + 1, T, C]``, that of the embeddings first; ``pooled``
            ``[C]``, ``logits`` ``[K]`` (token classification: ``[T, K]``) and ``vocabulary`` ``[M, V]`` where the
            model has them.
        """
        config, tensors = self.config, self.tensors
        types = np.zeros_like(ids_T) if types_T is None else types_T
        word, position = (
            tensors[f"embeddings.{name}.weight"][index].astype(np.float64)
            * tensors[f"embeddings.{name}.scale"][index][:, None]
            for name, index in (("word", ids_T), ("position", np.arange(len(ids_T))))
        )
        x = (word + position + tensors["embeddings.token_type.weight"][types]).astype(np.float32)
        x = self._norm("embeddings.norm", x)
        states = [x]
        for number in range(config["num_hidden_layers"]):
            x = self._layer(f"layers.{number}", x)
            states.append(x)
        results = {"hidden": x, "hidden_states": np.stack(states)}
        if "pooler.dense.weight" in tensors:
            results["pooled"] = self._linear("pooler.dense", quantize(x[:1], 1), 1, "tanh")[0]
        if "classifier.weight" in tensors:
            rows = x if config["head"] == "token_classification" else results["pooled"]
            logits = rows.astype(np.float64) @ tensors["classifier.weight"].T + tensors["classifier.bias"]
            results["logits"] = logits.astype(np.float32)
        if config["head"] == "masked_lm" and len(gaps_M):
            results["vocabulary"] = self._score_vocabulary(x[list(gaps_M)])
        return results

    def _score_vocabulary(self, x_MC: Floats) -> Floats:
        """Logits of every token, ``[M, V]``; the decoder is the word embedding, its activations stay fp32."""
        config, tensors = self.config, self.tensors
        y = self._norm("mlm.norm", self._linear("mlm.transform", quantize(x_MC, 1), 1, config["hidden_act"]))
        scores = y.astype(np.float64) @ tensors["embeddings.word.weight"].T.astype(np.float64)
        logits: Floats = (scores * tensors["embeddings.word.scale"] + tensors["mlm.bias"]).astype(np.float32)
        logits[:, config.get("real_vocab_size", config["vocab_size"]) :] = -np.inf
        return logits

    def _layer(self, name: str, x: Floats) -> Floats:
        config = self.config
        heads, channels = config["num_attention_heads"], config["hidden_size"]
        q, k, v = (
            self._linear(f"{name}.attention.{part}", quantize(x, config[groups]), config[groups], bias=part != "key")
            .reshape(len(x), heads, -1)
            .transpose(1, 0, 2)
            for part, groups in (("query", "q_groups"), ("key", "k_groups"), ("value", "v_groups"))
        )
        context = attention(q, k, v).transpose(1, 0, 2).reshape(len(x), channels)
        post, lanes = config["post_attention_groups"], config["v_groups"]
        y = self._linear(f"{name}.attention.output", quantize(context, lanes if lanes % post == 0 else post), post)
        x = self._norm(f"{name}.attention_norm", y + x)
        wide, narrow, act = config["intermediate_groups"], config["output_groups"], config["hidden_act"]
        y = self._linear(f"{name}.feed_forward.intermediate", quantize(x, wide), wide, act)
        y = self._linear(f"{name}.feed_forward.output", quantize(y, narrow, _FLOORS[act]), narrow)
        return self._norm(f"{name}.feed_forward_norm", y + x)

    def _linear(self, name: str, x: Quantized, groups: int, activation: str = "", bias: bool = True) -> Floats:
        parts = [self.tensors[f"{name}.{part}"] for part in ("weight", "scale", "bias")]
        # A key's bias adds the same to every score of a query, which softmax does not see: the engine leaves it out.
        return grouped_linear(x, parts[0], parts[1], parts[2] if bias else np.zeros_like(parts[2]), groups, activation)

    def _norm(self, name: str, x: Floats) -> Floats:
        eps = self.config["layer_norm_eps"]
        return layer_norm(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], eps)


class ReferenceEngine(QuantizedEngine):
    """An int8 model, run slowly, where nothing else can run it."""

    def __init__(self, manifest: artifact.Manifest, origin: Origin, model: ReferenceModel) -> None:
        super().__init__(manifest, origin)
        self._model = model

    @classmethod
    def load(cls, folder: str | Path, *, threads: int | None = None) -> ReferenceEngine:
        """Load an exported folder.

        Args:
            folder: Made by ``squeezebert export native``.
            threads: Not used: NumPy decides.

        Raises:
            InputError: The folder cannot be read.
        """
        return cls(artifact.read_manifest(folder), Origin.of_artifact(folder), ReferenceModel.load(folder))

    @classmethod
    def from_checkpoint(
        cls, source: str | Path, head: str | None = None, *, threads: int | None = None
    ) -> ReferenceEngine:
        """Load a checkpoint, quantising it in memory.

        Args:
            source: Folder or hub id.
            head: The head that is wanted; None: the one that it carries.
            threads: Not used: NumPy decides.

        Raises:
            InputError: The checkpoint cannot be read, or has another head.
            MissingExtraError: Its weights are no safetensors, and torch, which reads others, is not installed.
        """
        model, origin = quantize_checkpoint(source, head)
        return cls(model.manifest, origin, ReferenceModel(model.config, model.tensors))

    def run(self, batch: Batch) -> Floats:
        """Compute the logits of a batch. *Shape:* ``[B, K]``."""
        rows = zip(batch.input_ids, batch.token_type_ids, batch.attention_mask.sum(axis=1), strict=True)
        return np.stack([self._model.run(ids[:length], types[:length])["logits"] for ids, types, length in rows])

    def masked_logits(self, ids_T: Sequence[int], positions: Sequence[int]) -> Floats:
        """Score the vocabulary at some places of one sequence, as the native engine does. *Shape:* ``[M, V]``."""
        return self._model.run(np.asarray(ids_T), gaps_M=positions)["vocabulary"]
