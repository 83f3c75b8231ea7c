"""Int8 weights with one scale per row, shared by the formats."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 16  # entries of a matrix that are quantised at a time

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
    values, scale = np.empty(matrix.shape, np.int8), np.empty(len(matrix), np.float32)
    # By blocks that stay in the cache: a word embedding in float64 would fill it, and much memory, many times over.
    step = max(1, _BLOCK // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), step):
        rows = slice(start, start + step)
        _quantize_block(np.array(matrix[rows], dtype=np.float64), values[rows], scale[rows])
    return QuantizedRows(values, scale)


def _quantize_block(exact: NDArray[np.float64], values: NDArray[np.int8], scale: NDArray[np.float32]) -> None:
    """Write the result for some rows."""
    largest = np.maximum(exact.max(axis=1), -exact.min(axis=1))
    if not np.isfinite(largest).all():
        raise ValueError("the matrix has values that are not finite")
    scale[:] = largest / LEVELS
    divisor = np.where(scale > 0, scale, np.inf).astype(np.float64)
    exact /= divisor[:, None]
    # The stored scale is rounded, so a largest entry may come out a hair beyond 127.
    np.clip(np.rint(exact, out=exact), -LEVELS, LEVELS, out=exact)
    values[:] = exact
