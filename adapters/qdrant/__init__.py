"""The Qdrant engine: embedded in this process, or on a server."""

from __future__ import annotations

from hybridsearch.adapters.qdrant.backend import QdrantBackend

__all__ = ["QdrantBackend"]
