"""Dense vectors as int8 codes, and what is known of an inner product from the codes alone.

A vector x is s c + r. The codes c are whole numbers from -127 to 127, s is a scale, and of the residual r only the
length is stored. A query q is t e + w in the same way, with 16-bit codes e. Then

    x.q = s t c.e + s c.w + r.q

and by Cauchy and Schwarz the last two terms are at most (|x| + |r|) |w| + |r| |q|. So one pass over the codes, which
are a quarter of the bytes of float32, gives an upper and a lower bound of each score. The bounds also cover all
rounding errors: those of the codes' product (in float32 at most, in any order), of the bounds themselves, and of the
float64 sum that is the final score (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp, ldexp, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridsearch.vectors import Metric

Scalar = TypeVar("Scalar", bound=np.generic)

_ROWS = 256
"""The number of rows that are encoded at a time, so that the temporary arrays stay in the cache."""

_UP = 1 + 2.0**-18
"""A factor that makes room for the rounding errors of a few float32 operations."""

_LARGEST = 1e37
"""The largest product of lengths for which no bound overflows in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """The codes of some vectors.

    Attributes:
        values: Codes from -127 to 127, int8 of shape (rows, dimensions).
        scales: Length of one step of the codes, float32 of shape (rows,).
        residuals: Euclidean lengths of what the codes leave out, rounded up, float32 of shape (rows,).
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    residuals: NDArray[np.float32]

    @classmethod
    def of(cls, array: NDArray[np.float32]) -> Codes:
        """The codes of float32 vectors of shape (rows, dimensions)."""
        values = np.empty(array.shape, dtype=np.int8)
        scales = np.empty(len(array), dtype=np.float32)
        residuals = np.empty(len(array), dtype=np.float32)
        for start in range(0, len(array), _ROWS):
            part = array[start : start + _ROWS].astype(np.float64)
            steps = rounded_up(np.abs(part).max(axis=1, initial=0.0) / 127)
            rounded = np.rint(part / np.where(steps > 0, steps, 1).astype(np.float64)[:, None])
            with np.errstate(invalid="ignore"):  # then the residual is NaN, too
                values[start : start + _ROWS] = rounded.clip(-127, 127)
            part -= steps.astype(np.float64)[:, None] * values[start : start + _ROWS]
            scales[start : start + _ROWS] = steps
            residuals[start : start + _ROWS] = rounded_up(np.sqrt((part * part).sum(axis=1)))
        return cls(values, scales, residuals)

    def take(self, rows: NDArray[np.integer]) -> Codes:
        """The codes of some rows."""
        return Codes(self.values[rows], self.scales[rows], self.residuals[rows])

    @classmethod
    def concat(cls, parts: Sequence[tuple[Codes, NDArray[np.bool_] | None]]) -> Codes:
        """The codes of all parts. Each part has a mask of the rows to keep. None keeps all rows."""
        return cls(
            concat([(part.values, keep) for part, keep in parts]),
            concat([(part.scales, keep) for part, keep in parts]),
            concat([(part.residuals, keep) for part, keep in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class CodedQueries:
    """Queries as codes, with the numbers that make bounds of the codes' products.

    For a row with the scale s, the residual r and the length n, with the product p of the codes, and with the factors
    t, a, b, c, f, g, the score is between t s p - f n^2 - m and t s p - f n^2 + m, where m = a r + b n + c + g f n^2.
    "Score" means a number that orders as the scores of the query do.

    Attributes:
        values: Codes, int16 of shape (queries, dimensions).
        factors: The six factors, float32 of shape (queries, 6).
        bounded: Whether the bounds hold, shape (queries,). They do not if float32 could overflow.
    """

    values: NDArray[np.int16]
    factors: NDArray[np.float32]
    bounded: NDArray[np.bool_]

    @classmethod
    def of(cls, queries: NDArray[np.float32], metric: Metric, longest: float) -> CodedQueries:
        """The codes of some queries, for vectors whose lengths are at most `longest`.

        A query is first multiplied by a power of two, so that its length is from 0.5 to 1. That changes no order. Its
        codes are so small that no sum of products exceeds 32 bits, because their sum is at most sqrt(d) times their
        length. Each number differs from its code by half a step at most. Euclidean distance is ordered by
        x.q - |x|^2 / 2. Two scores may also differ by less than float64 can tell after the square root.
        """
        wide = queries.astype(np.float64)
        dimensions = wide.shape[1]
        root, rounding = sqrt(dimensions), (dimensions + 32) * 2.0**-23
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide)).tolist()
        largest = np.abs(wide).max(axis=1, initial=0.0).tolist()
        factors, ratios = np.empty((len(wide), 6), dtype=np.float32), np.empty(len(wide))
        bounded = np.full(len(wide), longest <= _LARGEST and dimensions < 2**20)
        for number, (length, most) in enumerate(zip(lengths, largest, strict=True)):
            power = ldexp(1.0, -frexp(length)[1])
            step = power * max(most / 32767, length * root / max(1, 2**24 - 1 - dimensions))
            step = float(np.float32(step * _UP)) or 1.0
            residual = 0.501 * step * root
            whole = length * power + residual
            constant, square = 2.0**-120, 0.0
            if metric == "euclidean":
                constant += (dimensions + 32) * 2.0**-52 * whole * whole / power
                square = power / 2
                if not (2.0**-125 <= square <= _LARGEST and longest * longest * square <= _LARGEST):
                    square, bounded[number] = 0.0, False
            margins = (whole * (1 + rounding) * _UP, (residual + rounding * whole) * _UP, constant * _UP)
            factors[number] = step, *margins, square, 2.0**-18
            ratios[number] = power / step
        wide *= ratios[:, None]
        values = np.rint(wide, out=wide).astype(np.int16)
        return cls(values, factors, bounded)


def concat(parts: Sequence[tuple[NDArray[Scalar], NDArray[np.bool_] | None]]) -> NDArray[Scalar]:
    """The rows of all arrays. Each has a mask of the rows to keep. None keeps all rows."""
    counts = [len(array) if keep is None else int(np.count_nonzero(keep)) for array, keep in parts]
    joined = np.empty((sum(counts), *parts[0][0].shape[1:]), dtype=parts[0][0].dtype)
    start = 0
    for (array, keep), count in zip(parts, counts, strict=True):
        if keep is None:
            joined[start : start + count] = array
        else:
            np.compress(keep, array, axis=0, out=joined[start : start + count])
        start += count
    return joined


def rounded_up(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """The numbers as float32, a little larger. 0 stays 0. Numbers that float32 cannot hold become infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return np.where(numbers == 0, np.float32(0), np.nextafter(numbers.astype(np.float32), np.float32(np.inf)))
