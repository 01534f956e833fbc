"""The token vectors of documents, kept on disk in 56 bytes each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsearch.backends import Fingerprint
from hybridsearch.encoders.cache import open_cache
from hybridsearch.forks import Lock

BYTES = 56
"""Number of bytes of a token vector. 200 tokens have 11,200 bytes."""

LEARNED_FROM = 2000
"""Number of token vectors from which a code is learned. With fewer, nothing is kept."""

_COLLECTED = 20_000  # vectors that are kept at a time: 30 MB for 384 dimensions
_MOST = 50_000  # vectors from which a code is learned, as many more change it little
_STEPS = {4: 0.3352, 2: 0.9957}  # widths of the best uniform quantiser for a normal distribution (Max, 1960)
_ERRORS = {4: 0.01154, 2: 0.1188}  # its mean squared error
_CODE = "\0code"  # a text that no document has, because a document's text is never encoded under this name


@dataclass(frozen=True, slots=True)
class TokenCode:
    """A short code of vectors: their principal components, the first rounded to 4 bits and more of them to 2 bits.

    Most of what token vectors have in common is their mean, and most of their differences are in few directions. So the
    mean is subtracted, and the vectors are turned to their principal axes. `learn` shares 56 bytes between axes with 4
    bits and axes with 2 bits, so that the expected error of a similarity is smallest. Queries are not rounded.

    Attributes:
        mean: Mean of the vectors, of shape (dimensions,), float32.
        axes: Axes, each multiplied by the width of its steps, of shape (dimensions, axes), float32.
        fine: Number of first axes that have 4 bits. The others have 2 bits.

    >>> rng = np.random.default_rng(0)
    >>> rows = (rng.normal(size=(2000, 64)) * np.geomspace(1, 0.01, 64)).astype(np.float32)
    >>> code = TokenCode.learn(rows)
    >>> packed = code.pack(rows[:3])
    >>> packed.dtype, packed.shape, code.fine
    (dtype('uint8'), (3, 32), 64)
    >>> bool(np.abs(code.compared_with(rows[5:6])(packed) - rows[:3] @ rows[5:6].T).max() < 0.2)
    True
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    fine: int

    @classmethod
    def learn(cls, rows: NDArray[np.float32]) -> TokenCode:
        """Learn the axes of some vectors, of shape (vectors, dimensions)."""
        some = rows[:: -(-len(rows) // _MOST)].astype(np.float64)
        mean = some.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(some - mean, rowvar=False, bias=True))
        variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
        ends = np.concatenate([[0.0], np.cumsum(variances**2)])  # queries vary along the same axes as documents

        def error(fine: int) -> float:
            used = min(len(variances), fine + _coarse(fine))
            return float(_ERRORS[4] * ends[fine] + _ERRORS[2] * (ends[used] - ends[fine]) + (ends[-1] - ends[used]))

        fine = min((min(2 * of_bytes, len(variances)) for of_bytes in range(0, BYTES + 1, 8)), key=error)
        used = min(len(variances), fine + _coarse(fine))
        widths = np.sqrt(variances[:used]) * np.repeat([_STEPS[4], _STEPS[2]], [fine, used - fine])
        return cls(mean.astype(np.float32), (axes[:, :used] * widths).astype(np.float32), fine)

    @property
    def width(self) -> int:
        """Number of bytes of a vector."""
        return int(-(-self.fine // 2) - (-(self.axes.shape[1] - self.fine) // 4))

    def pack(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Round vectors of shape (vectors, dimensions) to uint8 codes of shape (vectors, bytes)."""
        squares = np.einsum("ij,ij->j", self.axes, self.axes)
        steps = np.floor((rows - self.mean) @ (self.axes / np.where(squares > 0, squares, 1)))
        return np.hstack([_packed(steps[:, : self.fine], 4), _packed(steps[:, self.fine :], 2)])

    def compared_with(self, query: NDArray[np.float32]) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
        """Make the function that multiplies rounded vectors with vectors that are not rounded.

        Args:
            query: Other vectors, of shape (others, dimensions), float32.

        Returns:
            A function that takes codes of shape (vectors, bytes), uint8. It returns their similarities, of shape
            (vectors, others), float32.
        """
        turned, first = np.ascontiguousarray((query @ self.axes).T), -(-self.fine // 2)
        of_fine, of_coarse, of_mean = turned[: self.fine], turned[self.fine :], query @ self.mean

        def similarities(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = _levels(packed[:, :first], 4)[:, : len(of_fine)] @ of_fine
            found += _levels(packed[:, first:], 2)[:, : len(of_coarse)] @ of_coarse
            found += of_mean
            return found

        return similarities

    def to_bytes(self) -> bytes:
        """The code as bytes, which `from_bytes` reads."""
        shape = np.array([self.fine, *self.axes.shape], dtype="<i4")
        return shape.tobytes() + self.mean.astype("<f4").tobytes() + self.axes.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, given: bytes) -> TokenCode:
        """The code that `to_bytes` wrote."""
        fine, dimensions, axes = np.frombuffer(given, "<i4", 3).tolist()
        numbers = np.frombuffer(given, "<f4", offset=12)
        return cls(numbers[:dimensions], numbers[dimensions:].reshape(dimensions, axes), fine)


class KeptTokens:
    """The codes of the token vectors of texts, in a file of the encoding cache.

    The key is the text that the model reads. So the vectors of a text that changed are never used, and any number of
    processes may share the file. A batch of texts is committed when `put` returns.

    Args:
        setting: True for the folder of the encoding cache, or a folder.
        fingerprint: Fingerprint of what makes the vectors.
    """

    def __init__(self, setting: bool | str | Path, fingerprint: Fingerprint) -> None:
        self._cache = open_cache(setting, fingerprint)
        self._known: tuple[TokenCode, bytes] | None = None
        self._collected: dict[str, NDArray[np.float32]] = {}
        self._lock = Lock()

    @property
    def code(self) -> TokenCode | None:
        """The code of the vectors. None before `put` was called with enough vectors."""
        if self._known is None and self._cache is not None:
            for given in self._cache.get([_CODE]).values():
                self._known = TokenCode.from_bytes(given), _mark(given)
        return None if self._known is None else self._known[0]

    def get(self, texts: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        """The codes of texts, of shape (tokens, bytes). Texts that are not kept are left out."""
        code = self.code
        if code is None or self._cache is None or self._known is None:
            return {}
        mark = self._known[1]
        return {
            text: np.frombuffer(given, np.uint8, offset=len(mark)).reshape(-1, code.width)
            for text, given in self._cache.get(texts).items()
            if given.startswith(mark)
        }

    def put(self, vectors: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.uint8]]:
        """Keep the token vectors of texts, and return their codes. Nothing is kept before there is a code.

        The first call with 2,000 vectors learns the code.
        """
        if self._cache is None or not vectors:
            return {}
        if self.code is None:
            if sum(map(len, vectors.values())) < LEARNED_FROM:
                return {}
            self._cache.put({_CODE: TokenCode.learn(np.concatenate(list(vectors.values()))).to_bytes()})
        if self.code is None or self._known is None:  # the cache cannot be used, which it has said
            return {}
        code, mark = self._known
        packed = {text: code.pack(rows) for text, rows in vectors.items()}
        self._cache.put({text: mark + rows.tobytes() for text, rows in packed.items()})
        return packed

    def collect(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Take the token vectors of some texts, and keep many at a time. Several threads may call it at once."""
        with self._lock:
            self._collected |= vectors
            full = sum(map(len, self._collected.values())) >= _COLLECTED
        if full:
            self.put_collected()

    def put_collected(self) -> None:
        """Keep all that `collect` has taken."""
        with self._lock:
            collected, self._collected = self._collected, {}
            self.put(collected)


def _mark(given: bytes) -> bytes:
    """Eight bytes that stand for a code. Vectors that were packed by another code are not read."""
    return hashlib.blake2b(given, digest_size=8).digest()


def _coarse(fine: int) -> int:
    """Number of axes with 2 bits that fit beside axes with 4 bits."""
    return 4 * (BYTES - fine // 2)


def _packed(steps: NDArray[np.float32], bits: int) -> NDArray[np.uint8]:
    """Whole steps from the middle, of shape (vectors, axes), as some bits of bytes."""
    of_byte, half = 8 // bits, 1 << (bits - 1)
    levels = np.clip(steps + half, 0, 2 * half - 1).astype(np.uint8)
    levels = np.pad(levels, ((0, 0), (0, -levels.shape[1] % of_byte)))
    packed = np.zeros((len(levels), levels.shape[1] // of_byte), dtype=np.uint8)
    for place in range(of_byte):
        packed |= levels[:, place::of_byte] << np.uint8(place * bits)
    return packed


def _levels(packed: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """The levels of codes, in steps from the middle, of shape (vectors, axes), float32."""
    found: NDArray[np.float32] = _table(bits).take(packed, mode="clip").view(np.float32)  # without a check of bounds
    return found


@lru_cache(maxsize=2)
def _table(bits: int) -> NDArray[Any]:
    """The levels of each byte in steps from the middle, as one number, because numpy reads it at once."""
    levels = (np.arange(256)[:, None] >> np.arange(0, 8, bits)) & ((1 << bits) - 1)
    steps = (levels - (1 << (bits - 1)) + 0.5).astype(np.float32)
    return steps.view(np.complex64 if bits == 4 else np.complex128)[:, 0]
