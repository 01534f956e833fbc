"""Write your own encoder: character trigrams, which find misspelled words. It needs no model.

Run it: `python examples/custom_encoder.py`

Any object with the four methods of `hybridsearch.encoders.Encoder` is an encoder. This encoder is sparse: each text
becomes a vector of trigram counts. All vectors have the length 1, so the score is a cosine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

import hybridsearch as hs
from hybridsearch.backends import Fingerprint, RetrieverSchema
from hybridsearch.vectors import SparseQuery, SparseVectors, Vocabulary


class Trigrams:
    """An encoder that counts character trigrams. The score is the cosine of the counts."""

    def encode_documents(self, texts: Sequence[str], *, show_progress_bar: bool = False) -> SparseVectors:
        counts = [trigrams(text) for text in texts]
        vocabulary = Vocabulary(sorted(set().union(*counts)))
        rows = [row for row, of_text in enumerate(counts) for _ in of_text]
        columns = [vocabulary.index[gram] for of_text in counts for gram in of_text]
        weights = [weight for of_text in counts for weight in unit_length(of_text)]
        shape = (len(texts), len(vocabulary))
        return SparseVectors(csr_array((np.array(weights, np.float32), (rows, columns)), shape=shape), vocabulary)

    def encode_queries(self, texts: Sequence[str]) -> list[SparseQuery]:
        counts = [trigrams(text) for text in texts]
        return [SparseQuery(tuple(of_text), np.array(unit_length(of_text), np.float32)) for of_text in counts]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("trigrams", {"weights": "unit length"})

    def schema(self) -> RetrieverSchema:
        return RetrieverSchema("sparse", self.fingerprint())


def trigrams(text: str) -> Counter[str]:
    words = (f" {word} " for word in text.casefold().split())
    return Counter(word[i : i + 3] for word in words for i in range(len(word) - 2))


def unit_length(counts: Counter[str]) -> list[float]:
    length = sum(count**2 for count in counts.values()) ** 0.5
    return [count / length for count in counts.values()]


search = hs.HybridSearch({"bm25": hs.BM25(), "trigrams": Trigrams()})
search.index(
    [
        hs.Document("lift", "Lift of a wing at low speed"),
        hs.Document("boundary", "The laminar boundary layer"),
        hs.Document("flutter", "Flutter of thin panels"),
    ]
)
results = search.search("laminer boundry leyer")  # BM25 knows none of these words
print(results)
print()
print(results[0].explain())
