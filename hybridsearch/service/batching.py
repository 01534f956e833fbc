"""`Batcher` searches for queries that arrive together in one call, which is faster than one call for each.

Queries go together if all their options are equal. While a batch is in work, requests that arrive wait for the next
batch. After a batch, the clients that got answers probably ask again. So the next batch waits until as many requests
have arrived as there were clients, and at most 2 ms. A single client never waits.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, partial
from itertools import islice
from typing import Any, TypeAlias

from hybridsearch.arguments import number, whole_number
from hybridsearch.backends import Backend
from hybridsearch.errors import RetrieverTimeoutError
from hybridsearch.fusion import Fusion
from hybridsearch.hits import Results
from hybridsearch.search import HybridSearch
from hybridsearch.side_by_side import too_slow

WAIT = 0.002
"""Longest time in seconds that a batch waits for more requests."""

LARGEST = 64
"""Largest number of queries in a batch."""

_RECENT = 10
"""A batch that ended this many waits ago says nothing about how many requests come next."""

_SMALLER = 60.0
"""Time in seconds for which batches are smaller after a retriever was too slow for a batch."""

Answer: TypeAlias = "list[Results] | BaseException"
"""The results of one request, or the error that it gets."""


class Batcher:
    """Searches for queries that arrive together in one call.

    The results are those of `HybridSearch.search_many` for each request alone. If a batch fails, or an optional
    retriever fails in it, its requests are searched one by one, so that a bad query fails alone. If a request is
    cancelled, its place in the next batch is free. If all requests of a batch are cancelled, its requests to an engine
    with an asynchronous client are cancelled.

    Batches with different options take turns. If a retriever is too slow for its timeout in a batch, the batches of the
    next minute are half as large.

    Args:
        search: Function that returns the search to use. It is called for each batch.
        wait: Longest time in seconds that a batch waits for more requests. 0 for no wait.
        largest: Largest number of queries in a batch. A request with more queries is a batch of its own. 1 turns
            batching off.
        threads: Number of batches that are in work at the same time. None takes the number of cores, at least 2 and at
            most 4.
        observe: Function that is called after each batch that succeeded, with the number of its queries and with its
            results. None for no call.

    Raises:
        InvalidArgumentError: An argument is not allowed.

    >>> import asyncio, hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.upsert([{"id": "a", "text": "a wing"}, {"id": "b", "text": "a jet"}])
    >>> async def ask():
    ...     batcher = Batcher(lambda: search, observe=lambda size, results: print(f"{size} queries"))
    ...     found = await asyncio.gather(*(batcher.search_many([query]) for query in ("wing", "jet", "a jet")))
    ...     batcher.close()
    ...     return [results.ids for [results] in found]
    >>> asyncio.run(ask())
    1 queries
    2 queries
    [['a'], ['b'], ['b']]
    """

    def __init__(
        self,
        search: Callable[[], HybridSearch],
        *,
        wait: float = WAIT,
        largest: int = LARGEST,
        threads: int | None = None,
        observe: Callable[[int, Sequence[Results]], None] | None = None,
    ) -> None:
        self._search = search
        self._wait = number("wait", wait, least=0, unit="seconds")
        self._largest = whole_number("largest", largest)
        self._smaller, self._until = self._largest, 0.0
        self._failing = 0.0  # until then, a batch in which an optional retriever failed is not searched again
        self._threads = whole_number("threads", threads or min(4, max(2, os.cpu_count() or 1)))
        self._observe = observe
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="hybridsearch-batch")
        self._groups: dict[Hashable, _Group] = {}
        self._turns: deque[_Group] = deque()
        self._at_work: set[asyncio.Task[None]] = set()
        self._last: tuple[Hashable, int, float] = (None, 1, 0.0)  # options, number of clients, when the batch ended

    async def search_many(self, queries: Iterable[str], top_k: int = 10, **options: Any) -> list[Results]:
        """Find the best documents for the queries of one request, together with the queries of other requests.

        Args:
            queries: Texts of the queries.
            top_k: Number of hits for each query.
            **options: The other arguments of `HybridSearch.search`.

        Returns:
            One `Results` for each query, in the order of `queries`.

        Raises:
            HybridSearchError: The errors of `HybridSearch.search`.
        """
        asked = _Asked(list(queries), asyncio.get_running_loop().create_future())
        try:
            key: Hashable = tuple((name, _key(value)) for name, value in sorted({"top_k": top_k, **options}.items()))
        except RecursionError:  # a filter that is nested too deeply, which the search refuses
            key = id(asked)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, {"top_k": top_k, **options})
        group.waiting.append(asked)
        self._consider(group)
        try:
            return await asked.answer
        except asyncio.CancelledError:
            self._forget(group, asked)
            raise

    def close(self) -> None:
        """Cancel all requests, and end the threads when their work is done."""
        for task in self._at_work:
            task.cancel()
        for group in self._groups.values():
            group.stop_timer()
            for asked in group.waiting:
                asked.answer.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # From requests to batches

    def _consider(self, group: _Group) -> None:
        """Begin a batch of the group now, or a little later, unless it has a batch in work or waits for its turn."""
        if group.busy:
            return
        if not self._wait or len(group.waiting) >= self._expected(group):
            self._begin(group)
        elif group.timer is None:
            group.timer = asyncio.get_running_loop().call_later(self._wait, self._begin, group)

    def _expected(self, group: _Group) -> int:
        """The number of requests that probably come together: one of each client, if a batch ended just now."""
        key, clients, ended = self._last
        recent = key == group.key and time.monotonic() - ended < _RECENT * self._wait
        return min(clients, self._most()) if recent else 1

    def _most(self) -> int:
        """Largest number of queries in a batch that begins now."""
        return self._smaller if time.monotonic() < self._until else self._largest

    def _begin(self, group: _Group) -> None:
        group.stop_timer()
        group.busy = True
        if len(self._at_work) >= self._threads:
            self._turns.append(group)
            return
        group.batch = group.take(self._most())
        group.task = asyncio.create_task(self._work(group))
        self._at_work.add(group.task)

    async def _work(self, group: _Group) -> None:
        """Answer the batch of a group, and begin the next batches."""
        batch = group.batch
        try:
            answers = await self._answers(group, batch)
        except BaseException as error:  # each request of the batch raises it
            answers = [error] * len(batch)
        for asked, answer in zip(batch, answers, strict=True):
            asked.give(answer)
        self._last = (group.key, len(batch) + len(group.waiting), time.monotonic())
        if group.task is not None:
            self._at_work.discard(group.task)
        group.busy, group.batch, group.task = False, [], None
        self._go_on(group)
        while self._turns and len(self._at_work) < self._threads:
            turn = self._turns.popleft()
            turn.busy = False
            self._go_on(turn, waited=True)

    def _go_on(self, group: _Group, *, waited: bool = False) -> None:
        """Begin the next batch of a group, or drop the group if it has no request."""
        if not group.waiting:
            self._groups.pop(group.key, None)
        elif waited:
            self._begin(group)
        elif self._turns:
            group.busy = True
            self._turns.append(group)
        else:
            self._consider(group)

    async def _answers(self, group: _Group, batch: Sequence[_Asked]) -> Sequence[Answer]:
        search = self._search()
        group.awaited = _is_awaited(type(search.backend))

        async def ask(queries: Sequence[str]) -> list[Results]:
            if group.awaited:
                return await search.asearch_many(queries, **group.options)
            call = partial(search.search_many, queries, **group.options)
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)

        try:
            found = await ask([query for asked in batch for query in asked.queries])
        except Exception as error:
            if len(batch) == 1:
                return [error]
            if isinstance(error, RetrieverTimeoutError):
                self._make_smaller(batch)
            return await _one_by_one(ask, batch)
        failures, limits = found[0].failures if found else {}, search.timeout
        if any(name in limits and reason == str(too_slow(name, limits)) for name, reason in failures.items()):
            self._make_smaller(batch)
        elif failures and len(batch) > 1 and time.monotonic() >= self._failing:
            return await self._each_alone(ask, batch)
        self._tell(found)
        rest = iter(found)
        return [list(islice(rest, len(asked.queries))) for asked in batch]

    async def _each_alone(
        self, ask: Callable[[Sequence[str]], Awaitable[list[Results]]], batch: Sequence[_Asked]
    ) -> Sequence[Answer]:
        """Search again for each request alone, because one bad query may have made an optional retriever fail.

        If the retriever fails for each of them, the batches of the next minute are not searched again.
        """
        answers = await _one_by_one(ask, batch)
        found = [answer for answer in answers if isinstance(answer, list) and answer]
        if all(results[0].failures for results in found):
            self._failing = time.monotonic() + _SMALLER
        for results in found:
            self._tell(results)
        return answers

    def _tell(self, found: Sequence[Results]) -> None:
        if self._observe is not None:
            self._observe(len(found), found)

    def _make_smaller(self, batch: Sequence[_Asked]) -> None:
        """Make the next batches half as large as a batch in which a retriever was too slow for its timeout."""
        size = sum(len(asked.queries) for asked in batch)
        self._smaller, self._until = max(1, size // 2), time.monotonic() + _SMALLER

    def _forget(self, group: _Group, asked: _Asked) -> None:
        """Free the place of a request that was cancelled."""
        if asked.answer.done() and not asked.answer.cancelled():
            asked.answer.exception()  # without this, Python would warn that nobody has read it
        if asked in group.waiting:
            group.waiting.remove(asked)
            if not group.waiting and not group.busy:
                group.stop_timer()
                self._groups.pop(group.key, None)
        elif group.awaited and group.task is not None and all(one.answer.done() for one in group.batch):
            group.task.cancel()


@dataclass(eq=False, slots=True)
class _Asked:
    """The queries of one request."""

    queries: list[str]
    answer: asyncio.Future[list[Results]]

    def give(self, answer: Answer) -> None:
        if self.answer.done():  # it was cancelled
            return
        if isinstance(answer, BaseException):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


@dataclass(eq=False, slots=True)
class _Group:
    """Requests with equal options.

    Attributes:
        key: Value that is equal for equal options.
        options: The options.
        waiting: Requests of the next batches, in order.
        busy: Whether a batch is in work, or the group waits for its turn.
        awaited: Whether the batch in work is awaited, so that it can be cancelled.
        batch: Requests of the batch in work.
        task: Task that answers this batch.
        timer: Timer that begins the next batch.
    """

    key: Hashable
    options: Mapping[str, Any]
    waiting: deque[_Asked] = field(default_factory=deque)
    busy: bool = False
    awaited: bool = False
    batch: list[_Asked] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None

    def take(self, largest: int) -> list[_Asked]:
        """Take the first requests, as many as fit into a batch, and at least one."""
        taken = [self.waiting.popleft()]
        size = len(taken[0].queries)
        while self.waiting and size + len(self.waiting[0].queries) <= largest:
            taken.append(self.waiting.popleft())
            size += len(taken[-1].queries)
        return taken

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@cache
def _is_awaited(kind: type[Backend]) -> bool:
    """Whether backends of this class are awaited. `isinstance` with a protocol takes a tenth of a millisecond."""
    return all(hasattr(kind, name) for name in ("asearch", "aclose"))


async def _one_by_one(
    ask: Callable[[Sequence[str]], Awaitable[list[Results]]], batch: Sequence[_Asked]
) -> list[Answer]:
    """The answer or the error of each request. A request that was cancelled is not searched.

    After a timeout, the retriever is not asked for the rest of the requests, which would take as long again for each.
    """
    answers: list[Answer] = []
    for asked in batch:
        if answers and isinstance(answers[-1], RetrieverTimeoutError):
            answers.append(answers[-1])
            continue
        try:
            answers.append([] if asked.answer.done() else await ask(asked.queries))
        except Exception as error:
            answers.append(error)
    return answers


def _key(value: object) -> Hashable:
    """A value that is equal for equal options, and different for different ones."""
    if isinstance(value, Mapping):
        return (dict, tuple((name, _key(one)) for name, one in value.items()))
    if isinstance(value, list | tuple):
        return (list, tuple(map(_key, value)))
    if isinstance(value, Fusion):
        return (type(value), _key(value.to_json()))
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value), tuple(_key(getattr(value, one.name)) for one in fields(value)))
    try:
        hash(value)
    except TypeError:
        return (type(value), id(value))
    return (type(value), value)  # with the type, because 1 == True
