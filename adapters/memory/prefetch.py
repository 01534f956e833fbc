"""Tells the processor to load memory before it is read, if the installed numba supports this.

It uses inner modules of numba and llvmlite, which may change in any release. If they do not support it, `prefetch` does
nothing. Then searches are slower, and the hits are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

try:
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    @intrinsic  # type: ignore[untyped-decorator]
    def prefetch(context: Any, array: Any, position: Any) -> Any:
        """Load the cache line of `array[position]`. The position may be beyond the end of the array."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            pointer = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
            flag = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [pointer, flag(0), flag(3), flag(1)])  # for reading, into all caches, data

        return types.void(array, position), generate

    @njit(cache=True)  # type: ignore[untyped-decorator]
    def _tried(array: Any) -> None:
        prefetch(array, np.uint64(0))

    _tried(np.zeros(1, dtype=np.float32))
    HAS_HINT = True
except Exception:  # inner modules that have changed may raise any error
    HAS_HINT = False

    @njit  # type: ignore[untyped-decorator]
    def prefetch(array: Any, position: Any) -> None:
        """Do nothing."""
