"""Write model/ and logits.json: an int8 model as small as can be, and the logits that it gives for tokens.jsonl.

    python tests/golden/make_logits.py

The logits are those of the engine's arithmetic in NumPy (:mod:`squeezebert.runtime.engines.reference`), on the token
ids that ``transformers`` gave; neither an engine nor a tokenizer of ours has a part in them. Weights are drawn as whole
numbers by a generator that NumPy keeps as it is, so that they are the same with any version and on any machine.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from squeezebert import checkpoint
from squeezebert.export import native
from squeezebert.runtime.engines.reference import ReferenceModel

FOLDER = Path(__file__).parent
_STEPS = 1 << 15  # of a weight's range, to each side
_LABELS = ("a", "b", "c", "d")


def save_checkpoint(folder: Path) -> None:
    """Save the model in fp32, without its vocabulary."""
    loaded = checkpoint.load(
        "tiny",
        "sequence_classification",
        vocab_size=len((FOLDER / "vocab.txt").read_text(encoding="utf-8").splitlines()),
        hidden_size=32,
        intermediate_size=128,
        num_labels=len(_LABELS),
        id2label=dict(enumerate(_LABELS)),
        problem_type="single_label_classification",
    )
    draw = np.random.RandomState(0)
    with torch.no_grad():
        for name, parameter in sorted(loaded.model.named_parameters()):
            share = torch.from_numpy(draw.randint(-_STEPS, _STEPS + 1, parameter.shape) / _STEPS)
            # As in a trained model: norms about 1, small biases, and matrices that keep the size of what they multiply.
            if parameter.ndim == 2:
                parameter.copy_(share if "embeddings" in name else share * (3 / parameter.shape[1]) ** 0.5)
            else:
                parameter.copy_(0.3 * share + float("norm.weight" in name))
    checkpoint.save(loaded.model, folder)


def write(folder: Path) -> None:
    """Write both into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        save_checkpoint(Path(scratch))
        native.export(scratch, folder / "model")
    model = ReferenceModel.load(folder / "model")
    lines = (FOLDER / "tokens.jsonl").read_text(encoding="utf-8").splitlines()
    encodings = [json.loads(line) for line in lines]
    logits = [model.run(np.array(row["ids"]), np.array(row["types"]))["logits"] for row in encodings]
    text = ",\n".join(json.dumps([round(float(value), 7) for value in row]) for row in logits)
    (folder / "logits.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    write(FOLDER)
