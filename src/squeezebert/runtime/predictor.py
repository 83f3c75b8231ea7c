"""Texts -> predictions through any engine: tokenize, sort by length, run, put back in order.

A stream is cut into windows of about a thousand rows. Inside a window the rows are sorted by length, so that the texts
of a batch pad one another little; between windows nothing is kept, so memory does not grow with the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert import artifact
from squeezebert.data.collate import collate, sorted_batches
from squeezebert.errors import InputError
from squeezebert.evaluation.metrics import decide
from squeezebert.runtime import Prediction

if TYPE_CHECKING:
    from squeezebert.data.tasks import Kind
    from squeezebert.runtime.engines import Engine
    from squeezebert.runtime.engines.choice import EngineName
    from squeezebert.tokenizer import Tokenizer

# Enough for batches of nearly equal lengths, little enough for tens of megabytes at 512 tokens a row.
_WINDOW_ROWS = 1024


class Predictor:
    """An engine and its tokenizer.

    Args:
        engine: The loaded model.
        tokenizer: The vocabulary that the model was trained with.
        batch_size: Texts run at a time.
        max_length: Tokens kept of each text or pair; None: as many as in finetuning.

    Raises:
        InputError: ``batch_size`` or ``max_length`` is out of range.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, *, batch_size: int = 32, max_length: int | None = None
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch size must be at least 1, not {batch_size}")
        if max_length is not None:
            artifact.check_length(max_length, engine.max_length)
        self.engine = engine
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_length = max_length or engine.default_length

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        batch_size: int = 32,
        max_length: int | None = None,
        engine: EngineName = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> Predictor:
        """Load a model.

        Args:
            source: Folder of an exported model or of a checkpoint, or a hub id.
            batch_size: Texts run at a time.
            max_length: Tokens kept of each text or pair; None: as many as in finetuning.
            engine: "native" runs in int8 on the CPU, without torch; "torch" in fp32, which equals ``transformers`` to
                1e-5; "auto" takes the fastest one here (:data:`squeezebert.runtime.engines.choice.ENGINES`).
            device: "cpu", "cuda" and so on; "auto": a GPU where there is one.
            threads: Cores to use; None: those that this process may use.

        Raises:
            InputError: The model cannot be read, lacks a vocabulary, or is not for this engine or device.
            MissingExtraError: The engine needs a package that is not installed.
        """
        from squeezebert.runtime.engines.choice import load_classifier

        loaded = load_classifier(source, engine=engine, device=device, threads=threads)
        if loaded.tokenizer is None:
            raise InputError(f"{source}: no tokenizer.json or vocab.txt beside the weights; put the model's own there")
        return cls(loaded, loaded.tokenizer, batch_size=batch_size, max_length=max_length)

    @property
    def window(self) -> int:
        """Rows that are read ahead, a whole number of batches. Rows of one window never influence another's."""
        return self.batch_size * max(1, _WINDOW_ROWS // self.batch_size)

    def logits(self, rows: Iterable[tuple[str, str | None]]) -> Iterator[NDArray[np.float32]]:
        """Logits of a stream of (text, second text or None), in the order given. *Shape:* ``[K]`` each.

        An error raised by ``rows`` is passed on after the logits of every row before it.

        Raises:
            InputError: A second text is missing, or there is one too many; or the outputs are not finite.
        """
        for window in _windows(rows, self.window):
            yield from self._run(window)

    def stream(self, rows: Iterable[tuple[str, str | None]]) -> Iterator[Prediction]:
        """Predictions for a stream of (text, second text or None), in the order given, in constant memory.

        An error raised by ``rows`` is passed on after the predictions of every row before it.

        Raises:
            InputError: A second text is missing, or there is one too many; or the outputs are not finite.
        """
        for window in _windows(rows, self.window):
            yield from to_predictions(self.engine.kind, self.engine.labels, self._run(window))

    def predict(self, texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[Prediction]:
        """Predictions for texts, or for pairs of texts.

        Raises:
            InputError: ``texts`` and ``pairs`` differ in number, one is not a string, or the model takes pairs and
                there is no second text, or the reverse.
        """
        return list(self.stream(as_rows(texts, pairs)))

    def _run(self, window: Sequence[tuple[str, str | None]]) -> NDArray[np.float32]:
        """Logits of one window. *Shape:* ``[rows, K]``."""
        texts, pairs = [text for text, _ in window], [pair for _, pair in window]
        if self.engine.pair is True and None in pairs:
            raise InputError("the model was finetuned on pairs of texts; give each text its second one")
        if self.engine.pair is False and any(pair is not None for pair in pairs):
            raise InputError("the model was finetuned on single texts; leave out the second texts")
        encodings = self.tokenizer.encode_batch(
            texts, None if all(pair is None for pair in pairs) else pairs, max_length=self.max_length
        )
        logits = np.empty((len(window), len(self.engine.labels)), dtype=np.float32)
        for indices in sorted_batches([len(encoding.input_ids) for encoding in encodings], self.batch_size):
            # Few widths, so that what an engine prepares for each (kernels, plans) stays small.
            rows = [encodings[i] for i in indices]
            batch = collate(
                rows,
                indices=indices,
                pad_id=self.tokenizer.pad_id,
                pad_to_multiple=1 if self.engine.ragged else 8,
                max_width=self.engine.max_length,
                unpad=not self.engine.ragged,
            )
            logits[indices] = self.engine.run(batch)
        if not np.isfinite(logits).all():
            raise InputError("the model's outputs are not finite: its weights are damaged, or training diverged")
        return logits


def as_rows(texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[tuple[str, str | None]]:
    """Join texts and their second texts.

    Raises:
        InputError: They differ in number, or one is not a string; the message gives its position.
    """
    if pairs is not None and len(pairs) != len(texts):
        raise InputError(f"{len(texts)} texts, but {len(pairs)} second texts: give one for each")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts[{i}] is not a string but {type(text).__name__}: {text!r}")
        if pairs is not None and not isinstance(pairs[i], (str, type(None))):
            raise InputError(f"pairs[{i}] is not a string but {type(pairs[i]).__name__}: {pairs[i]!r}")
    return list(zip(texts, pairs or [None] * len(texts), strict=True))


def probabilities(kind: Kind, logits_BK: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of the outputs: softmax over the labels; multi_label: a sigmoid each; regression: the values.

    *Shape:* ``[B, K]`` -> ``[B, K]``.
    """
    x_BK = np.asarray(logits_BK, dtype=np.float64)
    if kind == "regression":
        return x_BK
    if kind == "multi_label":
        # exp(-|x|) cannot overflow; 1 / (1 + exp(-x)) could.
        small_BK = np.exp(-np.abs(x_BK))
        multi_BK: NDArray[np.float64] = np.where(x_BK >= 0, 1.0, small_BK) / (1.0 + small_BK)
        return multi_BK
    exp_BK = np.exp(x_BK - x_BK.max(axis=1, keepdims=True))
    single_BK: NDArray[np.float64] = exp_BK / exp_BK.sum(axis=1, keepdims=True)
    return single_BK


def to_predictions(kind: Kind, labels: Sequence[str], logits_BK: NDArray[Any]) -> list[Prediction]:
    """Name and weigh the logits of a batch. *Shape:* ``logits_BK [B, K]``."""
    decisions = decide(kind, logits_BK)
    if kind == "regression":
        return [Prediction(value, value, {}) for value in decisions.tolist()]
    predictions = []
    for decision, row in zip(decisions.tolist(), probabilities(kind, logits_BK).tolist(), strict=True):
        scores = dict(zip(labels, row, strict=True))
        if kind == "multi_label":
            chosen = tuple(label for label, yes in zip(labels, decision, strict=True) if yes)
            predictions.append(Prediction(chosen, max(row), scores))
        else:
            predictions.append(Prediction(labels[decision], row[decision], scores))
    return predictions


def _windows(rows: Iterable[tuple[str, str | None]], size: int) -> Iterator[list[tuple[str, str | None]]]:
    """Cut a stream into lists of ``size``; the last may be shorter. An error in ``rows`` follows what came before."""
    window: list[tuple[str, str | None]] = []
    failure: Exception | None = None
    source = iter(rows)
    while True:
        try:
            window.append(next(source))
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
    if failure is not None:
        raise failure
