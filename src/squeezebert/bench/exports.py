"""Files that contenders run: a checkpoint and the native artifact of ours, ONNX and OpenVINO files of the peers'.

Each is made by a process of its own, ``python -m squeezebert.bench.exports``, so that what converters leave in memory
touches nothing that is measured. The recipes are the fastest known for each runtime (docs/benchmarks.md).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezebert.bench.contenders import PACKAGES, Contender
from squeezebert.bench.harness import versions
from squeezebert.files import atomic_folder
from squeezebert.folder import RANDOM

if TYPE_CHECKING:
    from squeezebert.tokenizer import Tokenizer

ONNX, OPENVINO = "model.onnx", "model.xml"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OPSET = 20
_MOST_ROWS, _MOST_TOKENS = 1 << 16, 512
_CALIBRATION = 8  # samples that OpenVINO's ranges of activations are taken from


@dataclass(frozen=True, kw_only=True)
class Export:
    """One folder to make."""

    kind: str
    """checkpoint, native, onnxruntime or openvino."""
    size: str
    """Size of SqueezeBERT."""
    vocab_size: int
    target: str
    """The folder."""
    source: str | None = None
    """What it is made from: the tokenizer's folder (checkpoint), or another export."""
    model: str = "squeezebert"
    form: str | None = None
    precision: str = "fp32"

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(filter(None, (self.kind, self.model, self.form, self.precision)))


def plan(contender: Contender, size: str, vocab_size: int, cache: Path) -> list[Export]:
    """What a peer's file is made of, in order; the last one is the file that it runs. Empty: it needs none."""
    if contender.stack not in ("onnxruntime", "openvino"):
        return []
    packages = versions(PACKAGES[contender.stack])
    mark = hashlib.sha256(json.dumps([packages, _recipe()]).encode()).hexdigest()[:12]
    network = "-".join(filter(None, (contender.model, contender.form)))
    # The others' networks do not depend on the size.
    folder = cache / f"{contender.stack}-{packages[contender.stack]}-{mark}" / f"vocabulary-{vocab_size}"
    folder = folder / (f"{network}-{size}" if contender.model == "squeezebert" else network)
    plain = Export(
        kind=contender.stack, size=size, vocab_size=vocab_size, target=str(folder / "fp32"), model=contender.model,
        form=contender.form,
    )  # fmt: skip
    if contender.precision != "int8":
        return [plain]  # bf16 is a setting of the runtime
    return [
        plain,
        dataclasses.replace(plain, target=str(folder / "int8"), source=plain.target, precision="int8"),
    ]


def _recipe() -> str:
    """The text of the files that decide what an export holds: changed, the cache's files are made anew."""
    here = Path(__file__)
    return "".join(path.read_text(encoding="utf-8") for path in (here, here.with_name("peers.py")))


def make(export: Export) -> None:
    """Make one folder; it appears whole or not at all."""
    with atomic_folder(export.target) as folder:
        _MAKERS[export.kind](export, folder)


def _make_checkpoint(export: Export, folder: Path) -> None:
    import torch

    from squeezebert import checkpoint

    torch.manual_seed(0)
    loaded = checkpoint.load(f"{RANDOM}{export.size}", vocab=export.source, problem_type="single_label_classification")
    checkpoint.save(loaded.model, folder, tokenizer=loaded.tokenizer)


def _make_native(export: Export, folder: Path) -> None:
    from squeezebert.export.native import export as write

    assert export.source is not None
    write(export.source, folder)


def _make_onnx(export: Export, folder: Path) -> None:
    if export.precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Which sign is fast depends on the operator: products want signed weights, convolutions unsigned ones.
        kind = QuantType.QUInt8 if export.form == "conv" else QuantType.QInt8
        quantize_dynamic(Path(str(export.source)) / ONNX, folder / ONNX, weight_type=kind)
        return
    import onnx
    import torch

    from squeezebert.bench.peers import build

    module = build(export.model, export.form, export.size, export.vocab_size, attention="eager")
    rows = torch.export.Dim("batch", min=1, max=_MOST_ROWS)
    tokens = torch.export.Dim("tokens", min=1, max=_MOST_TOKENS)
    program: Any = torch.onnx.export(
        module, _example(), dynamo=True, dynamic_shapes=({0: rows, 1: tokens},) * len(_INPUTS), opset_version=_OPSET,
        input_names=_INPUTS, output_names=("logits",), verbose=False,
    )  # fmt: skip
    # Shapes that the exporter notes for values in between contradict what the quantiser then infers.
    del program.model_proto.graph.value_info[:]
    onnx.save(program.model_proto, str(folder / ONNX))


def _make_openvino(export: Export, folder: Path) -> None:
    import openvino

    if export.precision == "int8":
        import nncf
        import numpy as np

        model = openvino.Core().read_model(Path(str(export.source)) / OPENVINO)
        draw = np.random.default_rng(0)
        high = min(export.vocab_size, 30000)
        samples = []
        for _ in range(_CALIBRATION):
            ids = draw.integers(high // 30, high, (1, 128))
            samples.append(dict(zip(_INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True)))
        model = nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER)
    else:
        import torch

        from squeezebert.bench.peers import build

        module = build(export.model, export.form, export.size, export.vocab_size)
        with torch.no_grad():
            model = openvino.convert_model(module, example_input=dict(zip(_INPUTS, _example(), strict=True)))
    openvino.save_model(model, folder / OPENVINO, compress_to_fp16=False)


def _example() -> tuple[Any, Any, Any]:
    """Inputs to trace with: padded, so that no converter takes the mask for a constant."""
    import torch

    ids = torch.arange(32).view(2, 16) % 97 + 1
    mask = (torch.arange(16) < 8 + torch.arange(2)[:, None]).long()
    return ids, mask, torch.zeros_like(ids)


_MAKERS = {
    "checkpoint": _make_checkpoint,
    "native": _make_native,
    "onnxruntime": _make_onnx,
    "openvino": _make_openvino,
}


def stand_in_tokenizer(size: int) -> Tokenizer:
    """A vocabulary for runs without texts: letters, and words that do not occur."""
    from squeezebert.tokenizer import Tokenizer

    letters = [f"{prefix}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,'" for prefix in ("", "##")]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    return Tokenizer.from_vocab([*known, *(f"word{number}" for number in range(size - len(known)))])


if __name__ == "__main__":
    make(Export(**json.loads(sys.argv[1])))
