"""Seismic as an engine: approximate search of sparse vectors in this process, for collections of millions."""

from __future__ import annotations

from hybridsearch.adapters.seismic.backend import SeismicBackend

__all__ = ["SeismicBackend"]
