"""The compiled loop of late interaction, which compares token vectors of 16 bits with those of a query.

The hints on `kernels` hold here, too. Four rows are decoded and multiplied with sixteen vectors of the query at a time,
so that each number that is loaded is used several times. LLVM does not keep these sums in registers by itself, so the
code is given to it, as in `tiles`. Without it, plain loops give the same sums up to their rounding, and take longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hybridsearch.adapters.memory.plain import WIDTH

ROWS = 4
"""The number of rows that are multiplied at a time."""

_UNIT = np.float32(2.0**112)
"""The bits of a number of 16 bits, at their places in a number of 32 bits, stand for a number that is so much smaller.

The exponents have 5 and 8 bits, and 0 has the exponents 15 and 127.
"""

try:
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    _LONG, _SUMS = ir.IntType(64), ir.VectorType(ir.FloatType(), WIDTH)

    @intrinsic  # type: ignore[untyped-decorator]
    def multiply_rows(context: Any, rows: Any, query: Any, out: Any) -> Any:
        """out = rows @ query, of float32 arrays with the shapes (ROWS, dimensions), (dimensions, WIDTH), (ROWS, WIDTH).

        Each sum is made in the order of the dimensions.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            views = [
                context.make_array(kind)(context, builder, argument)
                for kind, argument in zip(signature.args, arguments, strict=True)
            ]
            dimensions = cgutils.unpack_tuple(builder, views[0].shape, 2)[1]

            def place(array: int, number: Any) -> Any:
                return builder.gep(views[array].data, [number])

            lines = [place(0, builder.mul(dimensions, _LONG(row))) for row in range(ROWS)]
            totals = [cgutils.alloca_once(builder, _SUMS) for _ in lines]
            for total in totals:
                builder.store(ir.Constant(_SUMS, [0.0] * WIDTH), total)
            undefined, first = ir.Constant(_SUMS, ir.Undefined), ir.Constant(ir.IntType(32), 0)
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
            with cgutils.for_range(builder, dimensions) as loop:
                pointer = builder.bitcast(place(1, builder.mul(loop.index, _LONG(WIDTH))), _SUMS.as_pointer())
                others = builder.load(pointer, align=4)
                for line, total in zip(lines, totals, strict=True):
                    number = builder.insert_element(undefined, builder.load(builder.gep(line, [loop.index])), first)
                    number = builder.shuffle_vector(number, undefined, everywhere)
                    product = builder.fmul(number, others, flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
            for row, total in enumerate(totals):
                pointer = builder.bitcast(place(2, _LONG(row * WIDTH)), _SUMS.as_pointer())
                builder.store(builder.load(total), pointer, align=4)
            return context.get_dummy_value()

        return types.void(rows, query, out), generate

    @njit(cache=True)  # type: ignore[untyped-decorator]
    def _tried(rows: Any, query: Any, out: Any) -> None:
        multiply_rows(rows, query, out)

    _tried(np.ones((ROWS, 3), np.float32), np.ones((3, WIDTH), np.float32), np.ones((ROWS, WIDTH), np.float32))
    HAS_ROWS = True
except Exception:  # inner modules that have changed may raise any error
    HAS_ROWS = False

    @njit  # type: ignore[untyped-decorator]
    def multiply_rows(rows: Any, query: Any, out: Any) -> None:
        """Do the same in plain loops."""
        out[:] = 0
        for column in range(rows.shape[1]):
            for row in range(ROWS):
                for number in range(WIDTH):
                    out[row, np.uint64(number)] += (
                        rows[row, np.uint64(column)] * query[np.uint64(column), np.uint64(number)]
                    )


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def most_similar(
    tokens: NDArray[np.uint16],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    query: NDArray[np.float32],
    first: int,
    last: int,
    tops: NDArray[np.float32],
    seconds: NDArray[np.float32],
    places: NDArray[np.int32],
) -> None:
    """The vector of each text that is most similar to each vector of a query.

    Args:
        tokens: Vectors of all texts, as the bits of their float16 numbers.
        starts: First vector of each text. It has one more entry for the end.
        rows: Texts to compare. Each has a vector.
        query: Vectors of the query, float32 of shape (blocks, dimensions, WIDTH).
        first: First of `rows` that is compared.
        last: Number after the last of `rows` that is compared.
        tops: Output, shape (all `rows`, blocks * WIDTH): the largest inner product, in float32.
        seconds: Output of the same shape: the largest inner product of the other vectors.
        places: Output of the same shape: number of the most similar vector in its text. Of equal ones, the first.
    """
    blocks, dimensions = query.shape[0], query.shape[1]
    bits = np.zeros((ROWS, dimensions), dtype=np.uint32)
    numbers = bits.view(np.float32)
    products = np.empty((ROWS, WIDTH), dtype=np.float32)
    for i in range(first, last):
        begin, end = starts[rows[i]], starts[rows[i] + 1]
        tops[i] = -np.inf
        seconds[i] = -np.inf
        places[i] = 0
        for start in range(begin, end, ROWS):
            width = min(ROWS, end - start)
            for row in range(width):
                for column in range(dimensions):
                    half = np.uint32(tokens[np.uint64(start + row), np.uint64(column)])
                    size = (half & np.uint32(0x7FFF)) << np.uint32(13)
                    bits[row, np.uint64(column)] = size | ((half & np.uint32(0x8000)) << np.uint32(16))
                for column in range(dimensions):
                    numbers[row, np.uint64(column)] *= _UNIT
            for block in range(blocks):
                multiply_rows(numbers, query[block], products)
                for row in range(width):
                    at = np.int32(start + row - begin)
                    for number in range(WIDTH):
                        to = np.uint64(block * WIDTH + number)
                        product, top = products[row, np.uint64(number)], tops[i, to]
                        more = product > top
                        other = top if more else product
                        seconds[i, to] = max(seconds[i, to], other)
                        tops[i, to] = product if more else top
                        places[i, to] = at if more else places[i, to]
