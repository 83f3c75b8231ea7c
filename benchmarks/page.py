"""The page of `squeezebert demo` with a model: what it transfers, and how long until its first prediction.

    python benchmarks/page.py --model small-sst2 --pictures docs/images

Each round is a browser of its own, which opens the page twice: cold, then warm (a second visit, files in the browser's
cache). Measured from the start of navigation until the label of a text, put in as soon as the page takes one, is shown.
Needs Chromium, node, and `npm ci` in web/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from browser import program
from harness import markdown_table, write_results

from squeezebert import artifact
from squeezebert.cli.demo import make_server
from squeezebert.export import native, web
from squeezebert.runtime import models

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["a gripping, beautifully shot film", "it drags on for two hours and never finds its point"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=models.DEFAULT, help="checkpoint, or folder exported as native")
    parser.add_argument("--rounds", type=int, default=5, help="browsers, one after the other")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the page")
    args = parser.parse_args()
    with served(args.model) as address:
        rounds = []
        for number in range(args.rounds):
            pictures = args.pictures if number == 0 else None
            job = {
                "chromium": program("chromium"), "address": address, "texts": TEXTS,
                "playwright": str(ROOT / "web" / "node_modules" / "playwright-core"),
                "pictures": None if pictures is None else str(pictures.resolve()),
            }  # fmt: skip
            command = [program("node"), str(ROOT / "benchmarks" / "page.mjs"), json.dumps(job)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rounds.append(json.loads(done.stdout))
            print(f"round {number + 1} of {args.rounds}: {rounds[-1]['visits']}", file=sys.stderr, flush=True)
    rows = []
    for place, name in enumerate(("cold", "warm")):
        visits = [each["visits"][place] for each in rounds]
        values = {key: median(visit[key] for visit in visits) for key in visits[0]}
        rows.append([name, f"{values['bytes'] / 1e6:.2f}", f"{values['ready']:.2f}", f"{values['answered']:.2f}"])
    table = markdown_table(["visit", "MB transferred", "s until the page takes a text", "s until its label"], rows)
    body = f"Medians of {args.rounds} browsers, Chromium {rounds[0]['browser']}.\n\n{table}"
    write_results("page", f"The page with `{args.model}`", body, rounds, ["squeezebert"])


@contextmanager
def served(source: str) -> Iterator[str]:
    """Address of the page with a model."""
    found = Path(models.find(source))
    with tempfile.TemporaryDirectory() as scratch:
        model = found
        if not artifact.is_artifact(found):
            model = Path(scratch) / web.MODEL
            native.export(str(found), model)
        with make_server(web.PAGE, model, 0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://localhost:{server.server_port}/"
            server.shutdown()


if __name__ == "__main__":
    main()
