"""Arrow arrays are those that pyarrow makes, and give the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hybridsearch.arrow import of_numbers, of_places, of_strings, to_numpy

KINDS = ["int8", "int32", "int64", "uint64", "float16", "float32", "float64"]


@given(
    values=st.sampled_from([*KINDS, "bool"]).flatmap(lambda kind: arrays.arrays(kind, st.integers(0, 20))),
    step=st.integers(1, 3),
)
def test_numbers_and_flags_are_those_of_pyarrow(values: np.ndarray[Any, Any], step: int) -> None:
    found = of_numbers(values[::step])
    found.validate(full=True)
    assert found.type == pa.array(values).type
    np.testing.assert_array_equal(found.to_numpy(zero_copy_only=False), values[::step])


@given(values=st.sampled_from(KINDS).flatmap(lambda kind: arrays.arrays(kind, 20)), start=st.integers(0, 20))
def test_numbers_come_back_also_from_a_slice(values: np.ndarray[Any, Any], start: int) -> None:
    back = to_numpy(of_numbers(values)[start:])
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values[start:])


def test_missing_numbers_are_nan() -> None:
    np.testing.assert_array_equal(to_numpy(pa.array([1.5, None], pa.float32())), [1.5, np.nan])
    assert to_numpy(pa.array([], pa.float32())).tolist() == []


@given(strings=st.lists(st.text(st.characters(exclude_categories=["Cs"]))), large=st.booleans())
def test_strings_are_those_of_pyarrow(strings: list[str], large: bool) -> None:
    found = of_strings(strings, large=large)
    found.validate(full=True)
    assert found.equals(pa.array(strings, pa.large_string() if large else pa.string()))


def test_a_lone_surrogate_and_a_place_that_is_too_large_are_errors() -> None:
    with pytest.raises(UnicodeEncodeError):
        of_strings(["\ud800"])
    with pytest.raises(pa.ArrowInvalid, match="2147483648 is too large for 32 bits"):
        of_places(np.array([0, 1 << 31]))
