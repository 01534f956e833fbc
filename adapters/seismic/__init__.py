"""The Seismic engine: approximate search of learned sparse vectors in this process, for millions of documents."""

from __future__ import annotations

from hybridsearch.adapters.seismic.backend import SeismicBackend

__all__ = ["SeismicBackend"]
