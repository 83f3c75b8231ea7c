"""The engine over torch: runs a checkpoint as it was trained, in fp32, on CPU or GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezebert.errors import InputError, require

require("torch", "torch")

import torch  # noqa: E402

from squeezebert import checkpoint  # noqa: E402
from squeezebert.folder import refuse_size  # noqa: E402
from squeezebert.host import keep_freed_memory, usable_cpus  # noqa: E402
from squeezebert.model.squeezebert import pack_for_inference  # noqa: E402
from squeezebert.runtime.engines import kind_of  # noqa: E402

if TYPE_CHECKING:
    from squeezebert.data.collate import Batch
    from squeezebert.data.tasks import Kind
    from squeezebert.model.config import ModelConfig
    from squeezebert.tokenizer import Tokenizer


class TorchEngine:
    """A checkpoint with a classification head, ready to run.

    Attributes:
        tokenizer: The checkpoint's tokenizer; None: it has none.
    """

    ragged = False

    def __init__(self, loaded: checkpoint.Loaded, tokenizer: Tokenizer | None, device: torch.device) -> None:
        self._model = loaded.model.eval().to(device)
        pack_for_inference(self._model)
        self._config: ModelConfig = loaded.config
        self._extra, self._order = loaded.extra, loaded.order
        self._device = device
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, source: str | Path, *, device: str = "auto", threads: int | None = None) -> TorchEngine:
        """Load a checkpoint's classifier.

        Args:
            source: Folder or hub id.
            device: "cpu", "cuda" and so on; "auto": a GPU where there is one.
            threads: Cores to use, for the whole process; None: torch's choice, but no more than the process may use.

        Raises:
            InputError: The checkpoint cannot be read, the device is not there, or ``threads`` is not positive.
        """
        where = _device(device)
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}")
        if where.type == "cpu":
            keep_freed_memory()
        torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cpus()))
        refuse_size(source)
        loaded = checkpoint.load(source)
        return cls(loaded, loaded.tokenizer, where)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs in order."""
        return self._config.labels

    @property
    def kind(self) -> Kind:
        """What the outputs stand for; where the checkpoint does not say: regression if there is one, else classes."""
        return kind_of(self._config.problem_type, self._config.num_labels)

    @property
    def max_length(self) -> int:
        """Longest sequence that the model takes, tokens."""
        return self._config.max_position_embeddings

    @property
    def default_length(self) -> int:
        """Length at which texts are cut unless told otherwise, tokens: that of finetuning, where it is known.

        A model trained from random weights has never seen the positions beyond.
        """
        trained = self._extra.get("max_length")
        return min(trained, self.max_length) if isinstance(trained, int) else self.max_length

    @property
    def pair(self) -> bool | None:
        """Whether an example is two texts; None: not known, as of published checkpoints."""
        pair = self._extra.get("pair")
        return pair if isinstance(pair, bool) else None

    @torch.inference_mode()
    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch. *Shape:* ``[B, K]``."""

        def to_device(array: NDArray[np.int64]) -> torch.Tensor:
            return torch.from_numpy(array).to(self._device)

        logits = self._model(
            to_device(batch.input_ids),
            None if batch.attention_mask.all() else to_device(batch.attention_mask),
            to_device(batch.token_type_ids),
            token_indices=None if batch.token_indices is None else to_device(batch.token_indices),
        ).logits
        array: NDArray[np.float32] = logits.float().cpu().numpy()
        return array

    def save(self, folder: str | Path, tokenizer: Tokenizer) -> None:
        """Write the model, with its tokenizer, as a checkpoint.

        Raises:
            InputError: ``folder`` is a file.
            OSError: It cannot be written, or the disk is full.
        """
        checkpoint.save(self._model, folder, tokenizer=tokenizer, extra=self._extra, order=self._order)


def _device(name: str) -> torch.device:
    """The device of that name; for "auto", the best there is.

    Raises:
        InputError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try cpu") from None
    return device
