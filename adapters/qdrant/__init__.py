"""Qdrant as an engine: embedded in this process, or a server."""

from __future__ import annotations

from hybridsearch.adapters.qdrant.backend import QdrantBackend

__all__ = ["QdrantBackend"]
