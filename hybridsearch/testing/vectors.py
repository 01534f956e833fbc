"""Tests of reading the vectors of single documents."""

from __future__ import annotations

import numpy as np
import pytest

from hybridsearch.backends import Backend, Vectored
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.testing import samples
from hybridsearch.testing.base import Base, Kinds, case
from hybridsearch.vectors import DenseVectors, MultiVectors


class VectorTests(Base):
    """Tests of `fetch_vectors`, for a backend that has it."""

    def test_vectors_come_in_the_order_of_the_ids_and_unknown_ids_are_left_out(
        self, filled: Backend, kinds: Kinds
    ) -> None:
        if not isinstance(filled, Vectored):
            pytest.skip("the backend declares no vectors of single documents")
        items = {item.id: item for item in samples.random_items()}
        for kind in kinds:
            with case(kind=kind):
                batch = filled.fetch_vectors(["d7", "unknown", "d0", "d59"], kind)
                assert [document.id for document in batch.documents] == ["d7", "d0", "d59"]
                assert [document.text for document in batch.documents] == [items[id].text for id in ("d7", "d0", "d59")]
                assert list(batch.vectors) == [kind]
                for row, document in enumerate(batch.documents):
                    item, vectors = items[document.id], batch.vectors[kind]
                    if isinstance(vectors, DenseVectors):
                        np.testing.assert_array_equal(vectors.array[row], item.vector)
                    elif isinstance(vectors, MultiVectors):
                        np.testing.assert_array_equal(vectors.of_row(row), item.multi_vector)
                    else:
                        cells = vectors.matrix[[row]].tocoo()
                        found = {vectors.vocabulary.terms[c]: v for c, v in zip(cells.col, cells.data, strict=True)}
                        assert found == (item.counts if kind == "lexical" else item.weights)
                assert len(filled.fetch_vectors([], kind)) == 0
        with pytest.raises(InvalidArgumentError, match="stranger"):
            filled.fetch_vectors(["d0"], "stranger")
