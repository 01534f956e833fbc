"""`/metrics`: numbers about requests and searches in the text format of Prometheus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from hybridsearch.errors import HybridSearchError
from hybridsearch.hits import Results
from hybridsearch.service.indexes import ServedIndex

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STAGES = ("encode", "search", "fuse", "fetch", "rerank")
"""The stages of a search whose seconds are measured."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUERIES = (1, 2, 4, 8, 16, 32, 64, 128)
_WAIT = 2.0  # seconds that an index may take to say how large it is


class Metrics:
    """The numbers that a service counts.

    The labels have few values: names of indexes and retrievers, stages, addresses as they are declared, methods and
    status codes. No label holds anything that a client has made up.

    If the environment has `PROMETHEUS_MULTIPROC_DIR` when the process starts, the numbers of all processes that use
    this folder are added up.

    Args:
        indexes: The indexes by name.
    """

    def __init__(self, indexes: Mapping[str, ServedIndex]) -> None:
        self._indexes = indexes
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("hybridsearch_requests", "Requests.", ["route", "method", "status"], registry=registry)
        self._seconds = Histogram(
            "hybridsearch_request_seconds", "Seconds of a request.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._in_flight = Gauge(
            "hybridsearch_requests_in_flight", "Requests in work.", registry=registry, multiprocess_mode="livesum"
        )
        self._stages = Histogram(
            "hybridsearch_stage_seconds",
            "Seconds of a stage of a batch of searches.",
            ["index", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "hybridsearch_batch_queries",
            "Queries that were searched together.",
            ["index"],
            buckets=_QUERIES,
            registry=registry,
        )
        self._degraded = Counter(
            "hybridsearch_degraded_searches",
            "Queries that were answered without an optional retriever.",
            ["index", "retriever"],
            registry=registry,
        )
        for name, served in indexes.items():
            served.observe = partial(self._searched, name)
            self._batches.labels(name)

    def begin(self) -> None:
        """Count a request that begins."""
        self._in_flight.inc()

    def end(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has ended.

        Args:
            route: Address as it is declared, such as `/v1/{index}/search`.
            method: Method of the request.
            status: Status of the answer.
            seconds: Seconds from the first byte of the request to the last byte of the answer.
        """
        self._in_flight.dec()
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    async def render(self) -> bytes:
        """Write the numbers in the text format of Prometheus. An index that does not answer in time has no size."""
        now = CollectorRegistry()
        now.register(_Now(self._indexes, await asyncio.gather(*map(_count, self._indexes.values()))))
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            counted = CollectorRegistry()
            MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
        else:
            counted = self._registry
            ProcessCollector(registry=now)
        return generate_latest(counted) + generate_latest(now)

    def _searched(self, index: str, size: int, found: Sequence[Results]) -> None:
        self._batches.labels(index).observe(size)
        if not found:
            return
        for stage in STAGES:
            seconds = [s for name, s in found[0].timings.items() if name.partition(" ")[0] == stage]
            if seconds:
                self._stages.labels(index, stage).observe(sum(seconds))
        for name in found[0].failures:
            self._degraded.labels(index, name).inc(size)


class _Now(Collector):
    """Numbers that are true now, for one process."""

    def __init__(self, indexes: Mapping[str, ServedIndex], counts: Sequence[int | None]) -> None:
        documents = GaugeMetricFamily("hybridsearch_documents", "Documents of an index.", labels=["index"])
        ready = GaugeMetricFamily("hybridsearch_ready", "Whether an index is ready: 1 or 0.", labels=["index"])
        reloads = CounterMetricFamily(
            "hybridsearch_reloads", "Times that another index has taken the place of an index.", labels=["index"]
        )
        for (name, served), count in zip(indexes.items(), counts, strict=True):
            if count is not None:
                documents.add_metric([name], count)
            ready.add_metric([name], served.ready)
            reloads.add_metric([name], served.reloads)
        self._families = (documents, ready, reloads)

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _count(served: ServedIndex) -> int | None:
    try:
        async with asyncio.timeout(_WAIT):
            return await asyncio.to_thread(served.search.count)
    except (TimeoutError, HybridSearchError):
        return None
