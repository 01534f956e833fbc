"""The embedded engine: exact lexical, sparse and dense search in this process, in RAM or in a folder."""

from __future__ import annotations

from hybridsearch.adapters.memory.backend import MemoryBackend
from hybridsearch.adapters.memory.remote import RemoteBackend

__all__ = ["MemoryBackend", "RemoteBackend"]
