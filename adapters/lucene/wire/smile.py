"""SMILE, a binary form of JSON that OpenSearch and Elasticsearch read. Bulk requests use it.

A float32 takes 6 bytes. As JSON it takes about 12, for its shortest decimal and a comma, and both sides must convert
it. This writer repeats names and texts, and it uses no raw bytes. So no byte of a value equals `END`.

Format: https://github.com/FasterXML/smile-format-specification, version 0.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

END = b"\xff"
"""The byte after each value in a stream."""

_HEADER = b":)\n\x00"
_STRING_END = b"\xfc"
_INTEGER, _LONG, _FLOAT, _DOUBLE = b"\x24", b"\x25", 0x28, b"\x29"


class Encoded(bytes):
    """A value, or a part of a value, that is written in SMILE already."""


def dumps(value: Any) -> bytes:
    """A value as SMILE, without `END`.

    Args:
        value: Value made of dicts, lists, texts, integers of 64 bits, floats and `Encoded` parts.

    >>> dumps({"a": ["b", 1]})
    b':)\\n\\x00\\xfa\\x80a\\xf8@b$\\x82\\xf9\\xfb'
    """
    return _HEADER + _value(value)


def name(text: str) -> bytes:
    """The name of a member."""
    raw = text.encode()
    size = len(raw)
    if size == len(text) and 1 <= size <= 64:
        return b"%c%b" % (0x80 + size - 1, raw)
    if size != len(text) and size <= 57:
        return b"%c%b" % (0xC0 + size - 2, raw)
    return b"\x34%b%b" % (raw, _STRING_END) if size else b"\x20"


def numbers(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Each float32 as a number in SMILE. The result is uint8 of shape (..., 6)."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    written = np.empty((*bits.shape, 6), dtype=np.uint8)
    written[..., 0] = _FLOAT
    for place, shift in enumerate((28, 21, 14, 7, 0), 1):
        written[..., place] = (bits >> np.uint32(shift)) & np.uint32(0x7F)
    return written


def list_of(written: NDArray[np.uint8]) -> Encoded:
    """A list of numbers that `numbers` has written."""
    return Encoded(b"\xf8%b\xf9" % written.tobytes())


def dict_of(members: Sequence[bytes]) -> Encoded:
    """A dict. `members` has names and values in turn."""
    return Encoded(b"\xfa%b\xfb" % b"".join(members))


def _value(value: Any) -> bytes:
    if isinstance(value, Encoded):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return b"\xfa%b\xfb" % b"".join([name(key) + _value(item) for key, item in value.items()])
    if isinstance(value, list):
        return b"\xf8%b\xf9" % b"".join(map(_value, value))
    if isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63:
        kind = _INTEGER if -(1 << 31) <= value < 1 << 31 else _LONG  # readers read five bytes of a long at once
        return kind + _integer((value << 1) ^ (value >> 63))
    if isinstance(value, float):
        (bits,) = struct.unpack(">Q", struct.pack(">d", value))
        return _DOUBLE + bytes([bits >> shift & 0x7F for shift in range(63, -1, -7)])
    raise TypeError(f"{value!r:.80} cannot be written as SMILE.")


def _text(text: str) -> bytes:
    raw = text.encode()
    size = len(raw)
    if size == len(text):
        if 1 <= size <= 64:
            return b"%c%b" % (0x40 + size - 1, raw)
        return b"\xe0%b%b" % (raw, _STRING_END) if size else b"\x20"
    if size <= 65:
        return b"%c%b" % (0x80 + size - 2, raw)
    return b"\xe4%b%b" % (raw, _STRING_END)


def _integer(value: int) -> bytes:
    """An integer as groups of 7 bits, the highest first. The last group has 6 bits and a mark."""
    written = [0x80 | (value & 0x3F)]
    value >>= 6
    while value:
        written.append(value & 0x7F)
        value >>= 7
    return bytes(reversed(written))
