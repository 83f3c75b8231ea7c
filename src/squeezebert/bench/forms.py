"""One form of the grouped layers in one runtime, or BERT-base there: ``python -m squeezebert.bench.forms JOB``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezebert import artifact
from squeezebert.files import atomic_folder, write_json

if TYPE_CHECKING:
    from squeezebert.export.graph import Graph


def make(*, format: str, precision: str, form: str | None, source: str | None, target: str) -> None:
    """Write an artifact through the format's own converter, and compare it with PyTorch.

    Args:
        format: A key of :data:`squeezebert.export.build.FORMATS`.
        precision: "fp32" or "int8".
        form: Of the grouped layers; None: BERT-base has none.
        source: Checkpoint; None: BERT-base with random weights.
        target: Where to write.
    """
    from squeezebert.export import build
    from squeezebert.export import graph as graphs

    graph = _bert() if source is None else graphs.load(source, None, build.converter(format).HEADS)
    with atomic_folder(target) as folder:
        manifest = build.write(format, graph, Path(folder), precision, form)  # type: ignore[arg-type]
        report = build.examine(Path(folder), manifest, build.record(graph))
        write_json(Path(folder) / artifact.CONFIG, replace(manifest, report=report.to_dict()).to_dict())


def _bert() -> Graph:
    """BERT-base of ``transformers`` in the package's clothes, which is all that the converters ask for."""
    import torch
    from torch import Tensor, nn

    from squeezebert.bench.peers import build
    from squeezebert.checkpoint import Loaded, LoadReport
    from squeezebert.export.graph import Graph
    from squeezebert.model.config import SIZES

    class Bert(nn.Module):
        """Three tensors in, a tuple out."""

        def __init__(self) -> None:
            super().__init__()
            self.model = build("bert", None, "base", config.vocab_size, attention="eager")

        def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor]:
            """Give the logits, ``[B, 2]``."""
            # As it is added: of how ``transformers`` makes it, ExecuTorch's quantiser would turn indices to floats.
            added = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
            logits: Tensor = self.model(input_ids, added, token_type_ids)
            return (logits,)

    config = SIZES["base"].replace(vocab_size=30528, problem_type="single_label_classification")
    module = Bert().eval().requires_grad_(False)
    loaded: Any = Loaded(module, config, None, LoadReport("BERT-base", random=True))
    return Graph(module, "sequence_classification", loaded, config.max_position_embeddings)


if __name__ == "__main__":
    make(**json.loads(sys.argv[1]))
