"""Int8 weights with one scale per row, shared by the formats."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVELS = 127
"""Largest quantised value; -128 is left out, so that the range is symmetric and products stay small."""


class QuantizedRows(NamedTuple):
    """``values * scale`` stands for the matrix."""

    values: NDArray[np.int8]
    """*Shape:* ``[rows, columns]``."""
    scale: NDArray[np.float32]
    """*Shape:* ``[rows]``; 0 where a row is all zeros."""


def quantize_rows(matrix: NDArray[Any]) -> QuantizedRows:
    """Round each row of a matrix to 255 levels, symmetric about zero.

    An output channel, or a row of an embedding, has its own scale: ``max |row| / 127``. The error of an entry is at
    most half its row's scale.

    Raises:
        ValueError: A value is not finite.
    """
    exact = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("the matrix has values that are not finite")
    scale = (np.abs(exact).max(axis=1) / LEVELS).astype(np.float32)
    divisor = np.where(scale > 0, scale, 1).astype(np.float64)
    # The stored scale is rounded, so a largest entry may come out a hair beyond 127.
    values = np.clip(np.rint(exact / divisor[:, None]), -LEVELS, LEVELS).astype(np.int8)
    values[scale == 0] = 0
    return QuantizedRows(values, scale)
