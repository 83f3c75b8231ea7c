"""What int8 costs: finetuned models by the native engine beside torch in fp32, and the error of each layer."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from squeezebert import checkpoint
from squeezebert.data.collate import collate
from squeezebert.data.tasks import get_task, load_split
from squeezebert.evaluation.evaluate import evaluate
from squeezebert.runtime.engines.quantized import quantize_checkpoint
from squeezebert.runtime.engines.reference import ReferenceModel
from squeezebert.runtime.predictor import Predictor

EXAMPLES = 32
"""Of the development set, whose layers are compared."""


def compare(run: str, task_name: str, data_dir: Path) -> dict[str, Any]:
    """Scores of both engines on the development set, and how far their answers differ."""
    task = get_task(task_name)
    examples = load_split(task, "validation", data_dir)
    results = {}
    for engine in ("torch", "native"):
        predictor = Predictor.load(run, engine=engine)
        kind, labels = predictor.engine.kind, predictor.engine.labels
        results[engine] = evaluate(task, examples, predictor.logits, kind=kind, labels=labels)
    fp32, int8 = results["torch"].logits, results["native"].logits
    row = {"rows": len(examples), "difference": float(np.abs(fp32 - int8).mean()), "spread": float(fp32.std())}
    row["scores"] = {name: [value, results["native"].scores[name]] for name, value in results["torch"].scores.items()}
    if task.num_labels > 1:
        row["agreement"] = float((fp32.argmax(1) == int8.argmax(1)).mean())
    return row


def layer_errors(run: str, task_name: str, data_dir: Path) -> list[float]:
    """Error of each layer's output, errors of the layers before included.

    Root mean square of the difference over that of the output in fp32. *Shape:* ``[L + 1]``, embeddings first.
    """
    examples = load_split(get_task(task_name), "validation", data_dir)[:EXAMPLES]
    loaded = checkpoint.load(run)
    quantized, _ = quantize_checkpoint(run, None)
    model = ReferenceModel(quantized.config, quantized.tensors)
    texts, pairs = [each.text for each in examples], [each.pair for each in examples]
    encodings = loaded.tokenizer.encode_batch(texts, pairs if pairs[0] is not None else None, max_length=128)
    wrong, whole = 0.0, 0.0
    for encoding in encodings:
        batch = collate([encoding], indices=[0])
        with torch.inference_mode():
            inputs = map(torch.from_numpy, (batch.input_ids, batch.attention_mask, batch.token_type_ids))
            output = loaded.model(*inputs, output_hidden_states=True)
        fp32 = torch.cat(output.hidden_states).numpy().astype(np.float64)
        int8 = model.run(batch.input_ids[0], batch.token_type_ids[0])["hidden_states"]
        wrong = wrong + ((int8 - fp32) ** 2).sum((1, 2))
        whole = whole + (fp32**2).sum((1, 2))
    return [math.sqrt(value) for value in wrong / whole]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME:TASK=RUN")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    rows, layers, data = [], [], {}
    for word in args.runs:
        about, run = word.split("=", 1)
        name, task = about.split(":")
        result = compare(run, task, args.data_dir)
        result["layers"] = layer_errors(run, task, args.data_dir)
        data[about] = result
        metric = get_task(task).primary_metric
        fp32, int8 = result["scores"][metric]
        agreement = f"{100 * result['agreement']:.2f} %" if "agreement" in result else ""
        difference = f"{result['difference']:.4f} of {result['spread']:.2f}"
        rows.append([name, task, metric, f"{fp32:.4f}", f"{int8:.4f}", agreement, difference])
        layers.append([name, task, *(f"{100 * value:.2f}" for value in result["layers"])])
        print(*rows[-1], flush=True)
    body = harness.markdown_table(["model", "task", "metric", "fp32", "int8", "equal labels", "logits differ by"], rows)
    depth = max(map(len, layers))
    header = ["model", "task", "embeddings", *(f"layer {n}" for n in range(1, depth - 2))]
    body += f"\n\nError of each layer's output, % of its size, over {EXAMPLES} examples:\n\n"
    body += harness.markdown_table(header, [row + [""] * (depth - len(row)) for row in layers])
    harness.write_results("engine_accuracy", "int8 by the native engine beside fp32 by torch", body, data, ["torch"])


if __name__ == "__main__":
    main()
