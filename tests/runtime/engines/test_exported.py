from __future__ import annotations

from typing import Any

import numpy as np

from squeezebert.runtime.engines import exported


def test_rows_run_one_by_one_come_back_in_place() -> None:
    seen = []

    def run_row(ids: Any, mask: Any, types: Any) -> list[Any]:
        seen.append(ids.shape)
        assert mask.sum() in (1, 3)
        return [ids.astype(np.float32)[:, :, None], ids.sum(axis=1, keepdims=True).astype(np.float32)]

    ids = np.array([[5, 6, 7], [8, 0, 0]])
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    tokens, rows = exported.run_rows(run_row, ids, mask, ids, lengths=(2, 4))
    assert seen == [(1, 4), (1, 2)]
    np.testing.assert_array_equal(tokens[:, :, 0], ids)
    np.testing.assert_array_equal(rows, [[18], [8]])
