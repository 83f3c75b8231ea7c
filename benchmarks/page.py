"""The page of `squeezebert demo` with a model: what it transfers, and how long until its first prediction.

    python benchmarks/page.py --model small-sst2

Each round is a browser of its own, which opens the page twice: cold, then warm (a second visit, with what the browser's
cache kept of the first). Measured from the start of navigation until the label of a text, put in as soon as the page
takes one, is shown. --pictures takes pictures of the page besides. Needs Chromium, node, and `npm ci` in web/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from pathlib import Path
from statistics import median

from browser import program
from harness import markdown_table, write_results

from squeezebert.cli.demo import page_server
from squeezebert.runtime import models

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [
    "a gripping, beautifully shot film",
    "it drags on for two hours and never finds its point",
    "the actors do what they can with lines that nobody would say",
    "warm, funny and wise about growing old",
    "the second half falls apart, and the ending makes no sense",
    "I have not laughed so much in a year",
    "an honest story, told without a false note",
    "loud, empty and far too long",
    "every scene looks like a painting",
    "I left before it was over",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=models.DEFAULT, help="checkpoint, or folder exported as native")
    parser.add_argument("--rounds", type=int, default=5, help="browsers, one after the other")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the page")
    args = parser.parse_args()
    with page_server(args.model, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://localhost:{server.server_port}/"
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
        server.shutdown()
    rows = []
    for place, name in enumerate(("cold", "warm")):
        visits = [each["visits"][place] for each in rounds]
        values = {key: median(visit[key] for visit in visits) for key in visits[0]}
        rows.append([name, f"{values['bytes'] / 1e6:.2f}", f"{values['ready']:.2f}", f"{values['answered']:.2f}"])
    table = markdown_table(["visit", "MB transferred", "s until the page takes a text", "s until its label"], rows)
    body = f"Medians of {args.rounds} browsers, Chromium {rounds[0]['browser']}.\n\n{table}"
    write_results("page", f"The page with `{Path(args.model).name}`", body, rounds, ["squeezebert"])


if __name__ == "__main__":
    main()
