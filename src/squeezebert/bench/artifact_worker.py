"""One artifact in its own process: ``python -m squeezebert.bench.artifact_worker JOB``, JOB being JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from squeezebert.bench.harness import serve
from squeezebert.bench.worker import timed_batches


def main(words: str) -> None:
    """Load the artifact with its runtime, and serve ``{"batch": B, "tokens": T}``: seconds of a call."""
    import numpy as np

    from squeezebert.artifact import read_manifest
    from squeezebert.data.collate import Batch
    from squeezebert.runtime.engines import Engine
    from squeezebert.runtime.engines.exported import ExportedEngine
    from squeezebert.runtime.engines.native import NativeEngine

    job = json.loads(words)
    native = read_manifest(job["folder"]).format == "native"
    engine: Engine = (NativeEngine if native else ExportedEngine).load(job["folder"], threads=job["threads"])

    def run(ids_BT: Any, mask_BT: Any, types_BT: Any) -> Any:
        return engine.run(Batch(ids_BT, mask_BT, types_BT, None, None, np.arange(len(ids_BT))))

    serve(timed_batches(run, vocab_size=job["vocab_size"]))


if __name__ == "__main__":
    main(sys.argv[1])
