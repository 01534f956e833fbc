"""Reads SMILE by its specification. A float32 comes as its shortest decimal, like from the engines."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


def documents(stream: bytes) -> list[Any]:
    """The values of a stream. Each has a header before it and a mark after it."""
    return [_Reader(part).document() for part in stream.split(b"\xff")[:-1]]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int = 1) -> bytes:
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def document(self) -> Any:
        assert self.take(4) == b":)\n\x00"
        value = self.value()
        assert self.at == len(self.data)
        return value

    def value(self) -> Any:
        (kind,) = self.take()
        if kind == 0x20:
            return ""
        if kind in (0x24, 0x25):
            value = self.integer()
            assert (kind == 0x24) == (-(2**31) <= value < 2**31)
            return value
        if kind == 0x28:
            return float(str(np.uint32(self.bits(5)).view(np.float32)))
        if kind == 0x29:
            return struct.unpack(">d", self.bits(10).to_bytes(8, "big"))[0]
        if 0x40 <= kind <= 0x7F:
            return self.take(kind - 0x40 + 1).decode("ascii")
        if 0x80 <= kind <= 0xBF:
            return self.take(kind - 0x80 + 2).decode()
        if kind in (0xE0, 0xE4):
            return self.long_text()
        if kind == 0xF8:
            return list(self.items(0xF9, self.value))
        assert kind == 0xFA
        return dict(self.items(0xFB, lambda: (self.name(), self.value())))

    def items(self, end: int, read: Any) -> Any:
        while self.data[self.at] != end:
            yield read()
        self.at += 1

    def name(self) -> str:
        (kind,) = self.take()
        if kind == 0x20:
            return ""
        if kind == 0x34:
            return self.long_text()
        if kind < 0xC0:
            return self.take(kind - 0x80 + 1).decode("ascii")
        return self.take(kind - 0xC0 + 2).decode()

    def long_text(self) -> str:
        end = self.data.index(0xFC, self.at)
        return (self.take(end - self.at + 1)[:-1]).decode()

    def bits(self, count: int) -> int:
        value = 0
        for group in self.take(count):
            assert group < 0x80
            value = value << 7 | group
        return value

    def integer(self) -> int:
        value = 0
        while self.data[self.at] < 0x80:
            value = value << 7 | self.take()[0]
        value = value << 6 | self.take()[0] & 0x3F
        return (value >> 1) ^ -(value & 1)
