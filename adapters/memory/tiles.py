"""Inner products of some rows and some queries: a tile of a matrix product.

Each number that is loaded is used for several products. On processors with AVX2, one instruction multiplies 16 pairs of
numbers and adds every two products. LLVM does not find this instruction for several sums at a time, so the code is
given to it. This uses inner modules of numba and llvmlite, which may change in any release. If they do not support it,
plain loops give the same sums and take longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

ROWS, QUERIES = 2, 4
"""The shape of a tile. Its sums fit into the registers."""

COLUMNS = 16
"""The number of dimensions that are multiplied at a time. Further dimensions are left out."""

try:
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    _INT, _LONG = ir.IntType(32), ir.IntType(64)
    _BYTES, _WORDS, _WIDE = (ir.VectorType(ir.IntType(bits), COLUMNS) for bits in (8, 16, 32))

    @intrinsic  # type: ignore[untyped-decorator]
    def multiply_tile(context: Any, codes: Any, row: Any, queries: Any, query: Any, out: Any, at: Any) -> Any:
        """out[i, at + j] = codes[row + j] @ queries[query + i], for all i below QUERIES and j below ROWS.

        Args:
            context: numba's.
            codes: int8 array of shape (rows, dimensions).
            row: First row.
            queries: int16 array of shape (queries, dimensions).
            query: First query.
            out: int32 array with QUERIES rows.
            at: First column of `out`.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            views = [
                context.make_array(signature.args[number])(context, builder, arguments[number]) for number in (0, 2, 4)
            ]
            widths = [cgutils.unpack_tuple(builder, view.shape, 2)[1] for view in views]

            def line(array: int, number: Any) -> Any:
                """A pointer to a row of one of the arrays."""
                return builder.gep(views[array].data, [builder.mul(number, widths[array])])

            def load(pointer: Any, column: Any, kind: Any) -> Any:
                place = builder.bitcast(builder.gep(pointer, [column]), kind.as_pointer())
                return builder.load(place, align=kind.element.width // 8)

            paired = "+avx2" in context.codegen().magic_tuple()[2]
            sums = ir.VectorType(_INT, COLUMNS // 2) if paired else _WIDE

            def products(words: Any, others: Any) -> Any:
                if not paired:
                    return builder.mul(builder.sext(words, _WIDE), builder.sext(others, _WIDE))
                function = ir.FunctionType(sums, [_WORDS, _WORDS])
                name = "llvm.x86.avx2.pmadd.wd"
                return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [words, others])

            _, first_row, _, first_query, _, place = arguments
            coded = [line(0, builder.add(first_row, _LONG(j))) for j in range(ROWS)]
            asked = [line(1, builder.add(first_query, _LONG(i))) for i in range(QUERIES)]
            totals = [[cgutils.alloca_once(builder, sums) for _ in coded] for _ in asked]
            for total in (total for of_query in totals for total in of_query):
                builder.store(ir.Constant(sums, [0] * sums.count), total)
            whole = builder.and_(widths[0], _LONG(-COLUMNS))
            with cgutils.for_range_slice(builder, _LONG(0), whole, _LONG(COLUMNS), _LONG) as (column, _):
                parts = [builder.sext(load(pointer, column, _BYTES), _WORDS) for pointer in coded]
                for pointer, of_query in zip(asked, totals, strict=True):
                    others = load(pointer, column, _WORDS)
                    for part, total in zip(parts, of_query, strict=True):
                        builder.store(builder.add(builder.load(total), products(part, others)), total)
            name = f"llvm.vector.reduce.add.v{sums.count}i32"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INT, [sums]), name)
            for i, of_query in enumerate(totals):
                results = builder.gep(line(2, _LONG(i)), [place])
                for j, total in enumerate(of_query):
                    builder.store(builder.call(function, [builder.load(total)]), builder.gep(results, [_LONG(j)]))
            return context.get_dummy_value()

        return types.void(codes, types.int64, queries, types.int64, out, types.int64), generate

    @njit(cache=True)  # type: ignore[untyped-decorator]
    def _tried(codes: Any, queries: Any, out: Any) -> None:
        multiply_tile(codes, 0, queries, 0, out, 0)

    _tried(np.ones((ROWS, COLUMNS), np.int8), np.ones((QUERIES, COLUMNS), np.int16), np.ones((QUERIES, ROWS), np.int32))
    HAS_TILE = True
except Exception:  # inner modules that have changed may raise any error
    HAS_TILE = False

    @njit  # type: ignore[untyped-decorator]
    def multiply_tile(codes: Any, row: Any, queries: Any, query: Any, out: Any, at: Any) -> None:
        """Do the same in plain loops."""
        for i in range(QUERIES):
            for j in range(ROWS):
                total = np.int32(0)
                for column in range(codes.shape[1] // COLUMNS * COLUMNS):
                    product = np.int32(codes[row + j, column]) * np.int32(queries[query + i, column])
                    total = np.int32(total + product)
                out[i, at + j] = total
