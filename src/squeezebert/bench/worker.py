"""One contender in its own process: ``python -m squeezebert.bench.worker JOB``, JOB being JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from squeezebert.bench.contenders import Contender
from squeezebert.bench.harness import Case, resident_mb, serve
from squeezebert.bench.runners import Job, Run, load

_TURN = 0.2  # seconds that the timed runs of a turn last


def main(words: str) -> None:
    """Serve.

    Requests: ``{"batch": B, "tokens": T}`` and ``{"texts": FILE}`` give seconds, ``{"memory": true}`` gives the
    resident memory in MB.
    """
    values = json.loads(words)
    job = Job(**values | {"contender": Contender(**values["contender"])})
    loaded = load(job)
    batch = timed_batches(loaded.run, job.vocab_size)

    def answer(case: Case) -> Any:
        if "memory" in case:
            return resident_mb()
        if "texts" in case:
            rows = [tuple(row) for row in json.loads(Path(case["texts"]).read_text(encoding="utf-8"))]
            start = time.perf_counter()
            loaded.classify(rows)
            return time.perf_counter() - start
        return batch(case)

    serve(answer)


def timed_batches(run: Run, vocab_size: int) -> Callable[[Case], float]:
    """What answers ``{"batch": B, "tokens": T}`` with the seconds that random tokens take.

    Each answer is the median of the runs that fit into a fifth of a second, one at least, after one that is not
    counted: since its last turn the others' weights have been through the caches, and its threads have gone to sleep,
    which is not what is asked.
    """
    draw = np.random.default_rng(0)
    high = min(vocab_size, 30000)

    def answer(case: Case) -> float:
        ids_BT = draw.integers(high // 30, high, (case["batch"], case["tokens"]))
        mask_BT, types_BT = np.ones_like(ids_BT), np.zeros_like(ids_BT)
        run(ids_BT, mask_BT, types_BT)
        seconds: list[float] = []
        while sum(seconds) < _TURN:
            start = time.perf_counter()
            run(ids_BT, mask_BT, types_BT)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    return answer


if __name__ == "__main__":
    main(sys.argv[1])
