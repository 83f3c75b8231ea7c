"""Latency in the browser: this package's engine beside onnxruntime-web, in Chromium, as WebAssembly.

Every contender has a browser of its own. The models have random weights; onnxruntime-web's are the files that
`squeezebert bench` makes for ONNX Runtime. Needs Chromium, node, `npm ci` in web/ for playwright-core, and `npm install
onnxruntime-web --ignore-scripts` elsewhere: --onnxruntime names the package's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import harness

from squeezebert.bench import exports
from squeezebert.bench.contenders import Contender
from squeezebert.bench.exports import Export
from squeezebert.bench.harness import take_turns

ROOT = Path(__file__).resolve().parents[1]
CASES = {"1x32": {"batch": 1, "tokens": 32}, "1x128": {"batch": 1, "tokens": 128}}
OURS = "squeezebert, WebAssembly"
VOCABULARY = 30528
WARMUP = 2


def peers() -> dict[str, Contender]:
    """The files that onnxruntime-web runs, by name."""
    found = {}
    for precision in ("fp32", "int8"):
        for model, form in (("squeezebert", "conv"), ("squeezebert", "split"), ("bert", None)):
            name = "BERT-base" if form is None else f"SqueezeBERT ({form})"
            contender = Contender(stack="onnxruntime", model=model, precision=precision, form=form)
            found[f"onnxruntime-web {precision}, {name}"] = contender
    return found


def make(size: str, cache: Path, folder: Path) -> dict[str, Path]:
    """Folder of every contender's model."""
    tokenizer = folder / "tokenizer"
    exports.stand_in_tokenizer(VOCABULARY).save(tokenizer)
    plans = {OURS: [
        Export(kind=kind, size=size, vocab_size=VOCABULARY, target=str(folder / kind), source=str(folder / source))
        for kind, source in (("checkpoint", "tokenizer"), ("native", "checkpoint"))
    ]}  # fmt: skip
    plans |= {name: exports.plan(contender, size, VOCABULARY, cache) for name, contender in peers().items()}
    for name, plan in plans.items():
        for export in plan:
            if not Path(export.target).is_dir():
                print(f"building {name}: {export.name}", file=sys.stderr, flush=True)
                exports.make(export)
    return {name: Path(plan[-1].target) for name, plan in plans.items()}


def program(name: str) -> str:
    """Path of an installed program."""
    found = shutil.which(name)
    if found is None:
        sys.exit(f"needs {name}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of every contender")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds")
    parser.add_argument("--size", default="base", help="size of SqueezeBERT")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the peers' models")
    parser.add_argument("--onnxruntime", type=Path, required=True, help="folder of the package onnxruntime-web")
    args = parser.parse_args()
    facts = json.loads((args.onnxruntime / "package.json").read_text(encoding="utf-8"))
    common = {
        "chromium": program("chromium"), "threads": args.threads, "vocabulary": 30000,
        "playwright": str(ROOT / "web" / "node_modules" / "playwright-core"),
        "onnxruntime": str(args.onnxruntime.resolve()),
        "web": str(ROOT / "src" / "squeezebert" / "web"), "source": str(ROOT / "web" / "src"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        models = make(args.size, args.cache, Path(temporary))
        workers = []
        for name, model in models.items():
            job = {**common, "engine": "squeezebert" if name == OURS else "onnxruntime", "model": str(model)}
            command = [program("node"), str(ROOT / "benchmarks" / "browser.mjs"), json.dumps(job)]
            workers.append(harness.Worker(name, command, args.threads))
        seconds: dict[str, dict[str, list[float]]] = {name: {case: [] for case in CASES} for name in models}
        try:
            for name, case, value in take_turns(workers, CASES, args.rounds, WARMUP):
                seconds[name][case].append(value)
        finally:
            for worker in workers:
                worker.close()
        sizes = {name: sum(each.stat().st_size for each in model.iterdir()) / 1e6 for name, model in models.items()}
    body, medians = harness.median_table(seconds, OURS, 1e3, "ms")
    body += "\n\nFolders of the models, MB: " + ", ".join(f"{name} {size:.0f}" for name, size in sizes.items()) + "."
    body += f"\n\nonnxruntime-web {facts['version']}, {args.threads} threads, the page cross-origin isolated."
    data = {"seconds": seconds, "medians": medians, "mb": sizes}
    packages = ("squeezebert", "torch", "onnx", "onnxruntime")
    harness.write_results(f"browser_{args.size}", f"In the browser, SqueezeBERT `{args.size}`", body, data, packages)


if __name__ == "__main__":
    main()
