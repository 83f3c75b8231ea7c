"""The three forms of a grouped layer, forward and with gradients, at the model's own shapes.

This is where ``squeezebert.model.grouped.fastest_form`` comes from. One process: all forms share torch's threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import harness
import torch
from torch import Tensor

from squeezebert.host import keep_freed_memory
from squeezebert.model.grouped import Form, grouped_linear

LAYERS = [
    ("768>768 /4", 768, 768, 4),
    ("768>3072 /4", 768, 3072, 4),
    ("3072>768 /4", 3072, 768, 4),
    ("768>768", 768, 768, 1),
]
TOKENS = (32, 208, 1024)
FORMS: tuple[Form, ...] = ("conv", "split", "bmm")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def runs(
    tokens: int, inputs: int, outputs: int, groups: int, dtype: torch.dtype, device: str
) -> dict[str, Callable[[], object]]:
    """Every form's forward pass and forward with backward, on the same tensors."""
    x = torch.randn(tokens, inputs, dtype=dtype, device=device)
    weight = torch.randn(outputs, inputs // groups, dtype=dtype, device=device) * 0.02
    bias = torch.randn(outputs, dtype=dtype, device=device)
    grad = torch.randn(tokens, outputs, dtype=dtype, device=device)
    leaves = [each.clone().requires_grad_() for each in (x, weight, bias)]

    def forward(form: Form) -> Tensor:
        with torch.inference_mode():
            return grouped_linear(x, weight, bias, groups, form)

    def both(form: Form) -> tuple[Tensor, ...]:
        return torch.autograd.grad(grouped_linear(*leaves, groups, form), leaves, grad)

    chosen: dict[str, Callable[[], object]] = {}
    for form in FORMS:
        chosen[f"{form} forward"] = lambda form=form: forward(form)  # type: ignore[misc]
        chosen[f"{form} training"] = lambda form=form: both(form)  # type: ignore[misc]
    return chosen


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    synchronize = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    rows, data = [], {}
    for dtype in (torch.float32, torch.bfloat16):
        for tokens in TOKENS:
            for name, inputs, outputs, groups in LAYERS:
                contenders = runs(tokens, inputs, outputs, groups, dtype, args.device)
                times: dict[str, list[float]] = {key: [] for key in contenders}
                for number in range(args.rounds + 5):
                    for key, run in contenders.items():
                        elapsed = seconds(lambda run=run: (run(), synchronize()))  # type: ignore[misc]
                        if number >= 5:
                            times[key].append(elapsed)
                medians = {key: statistics.median(values) * 1e3 for key, values in times.items()}
                data[f"{dtype} {tokens} {name}"] = medians
                cells = []
                for kind in ("forward", "training"):
                    best = min(FORMS, key=lambda form: medians[f"{form} {kind}"])
                    for form in FORMS:
                        text = f"{medians[f'{form} {kind}']:.2f}"
                        cells.append(f"**{text}**" if form == best else text)
                rows.append([str(dtype).removeprefix("torch."), str(tokens), name, *cells])
    header = [
        "dtype",
        "tokens",
        "layer",
        *(f"{form}, forward" for form in FORMS),
        *(f"{form}, training" for form in FORMS),
    ]
    table = "Median milliseconds of one layer; training is forward and backward. Bold: the fastest.\n\n"
    title = f"Forms of the grouped layer, {args.device}, {args.threads} threads"
    harness.write_results("grouped_forms", title, table + harness.markdown_table(header, rows), data, ["torch"])


if __name__ == "__main__":
    main()
