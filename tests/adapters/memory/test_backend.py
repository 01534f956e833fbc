"""Tests of the memory backend as a whole: its content after any sequence of changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridsearch.adapters.memory import MemoryBackend, loading, merging
from hybridsearch.backends import Backend, Request, Schema
from hybridsearch.encoders.native import NativeBM25
from hybridsearch.errors import (
    BackendError,
    IndexExistsError,
    IndexLockedError,
    InvalidArgumentError,
    StorageError,
)
from hybridsearch.filters import Filter
from hybridsearch.vectors import DenseVectors, EncodedBatch, SparseQuery

IDS = [f"d{number}" for number in range(60)]


def same_content(a: MemoryBackend, b: MemoryBackend, samples: Any) -> bool:
    requests = samples.requests()
    filtered = [
        Request(r.retriever, r.query, r.k, Filter.parse({"n": {"$lt": 5}, "id": {"$gt": "d2"}})) for r in requests
    ]
    return (
        a.count() == b.count()
        and a.fetch(IDS) == b.fetch(IDS)
        and a.search(requests + filtered) == b.search(requests + filtered)
    )


def test_it_satisfies_the_backend_protocol() -> None:
    assert isinstance(MemoryBackend(), Backend)


@pytest.mark.parametrize("largest", [1, 2000, merging.MAX_BYTES])
@pytest.mark.parametrize("durable", [False, True])
def test_loading_batches_gives_the_index_that_single_upserts_give(
    durable: bool, largest: int, tmp_path: Path, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "MAX_BYTES", largest)
    monkeypatch.setattr(loading, "STORED_BYTES", largest)
    loaded, upserted = samples.backend(tmp_path / "index" if durable else None, IDS[:20]), samples.backend(None, [])
    batches = [samples.batch(ids, 1) for ids in (IDS[10:25], [], IDS[25:40], IDS[40:])]
    loaded.load(iter(batches))
    for batch in (samples.batch(IDS[:10]), *batches):
        upserted.upsert(batch)
    assert same_content(loaded, upserted, samples)
    loaded.close()


def test_a_load_that_takes_long_stores_what_it_has(
    tmp_path: Path, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored() -> int:
        reader = MemoryBackend(tmp_path / "index")
        reader.open()
        return reader.count()

    def batches() -> Iterator[EncodedBatch]:
        for first in range(0, 60, 20):
            assert stored() == (first if first < 40 else 20)  # the second batch waits for the third
            monkeypatch.setattr(loading, "STORED_SECONDS", 1000 if first else -1)
            yield samples.batch(IDS[first : first + 20])

    backend = samples.backend(tmp_path / "index", [])
    backend.load(batches())
    assert stored() == 60
    backend.close()


def test_a_batch_that_took_long_is_stored_at_once(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> Iterator[EncodedBatch]:
        yield samples.batch(IDS[:20])
        yield samples.batch(IDS[20:40])
        assert backend.count() == 0
        monkeypatch.setattr(loading, "SLOW_SECONDS", -1)
        yield samples.batch(IDS[40:])
        assert backend.count() == 60

    backend = samples.backend(None, [])
    backend.load(batches())
    assert same_content(backend, samples.backend(None, IDS), samples)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_while_batches_are_read_leaves_the_batches_before(error: type[BaseException], samples: Any) -> None:
    def batches() -> Iterator[EncodedBatch]:
        yield samples.batch(IDS[:20])
        yield samples.batch(IDS[20:])
        raise error

    backend = samples.backend(None, [])
    with pytest.raises(error):
        backend.load(batches())
    assert same_content(backend, samples.backend(None, IDS), samples)
    with pytest.raises(InvalidArgumentError, match="twice"):
        backend.load([samples.batch(IDS[:5], 1), samples.batch([IDS[7], IDS[7]], 1), samples.batch(IDS[8:], 1)])
    backend.upsert(samples.batch(IDS[:5]))
    assert same_content(backend, samples.backend(None, IDS), samples)


@pytest.mark.parametrize("durable", [False, True])
def test_of_equal_ids_in_two_batches_of_a_load_the_last_counts(durable: bool, samples: Any, tmp_path: Path) -> None:
    loaded, upserted = samples.backend(tmp_path / "index" if durable else None, IDS[:2]), samples.backend(None, IDS[:2])
    batches = [samples.batch(IDS[:20], 1), samples.batch(IDS[10:30], 2), samples.batch(IDS[15:25])]
    loaded.load(batches)
    for batch in batches:
        upserted.upsert(batch)
    assert same_content(loaded, upserted, samples)
    loaded.close()


def test_a_retriever_that_leaves_analysis_to_an_engine_is_refused() -> None:
    with pytest.raises(BackendError, match=r"'native' \(text\).*hs\.BM25"):
        MemoryBackend().create(Schema({"native": NativeBM25().schema()}))


@pytest.mark.parametrize("durable", [False, True])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["upsert", "delete", "optimize", "reopen"]), st.sets(st.sampled_from(IDS), min_size=1)
        ),
        max_size=14,
    )
)
def test_any_sequence_of_changes_equals_a_fresh_index_bit_for_bit(
    durable: bool,
    samples: Any,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, set[str]]],
) -> None:
    place = tmp_path_factory.mktemp("index") / "i" if durable else None
    backend = samples.backend(place)
    expected: dict[str, int] = {}
    for version, (action, ids) in enumerate(steps):
        if action == "upsert":
            backend.upsert(samples.batch(sorted(ids), version))
            expected.update(dict.fromkeys(ids, version))
        elif action == "delete":
            assert backend.delete([*ids, "unknown"]) == len(ids & set(expected))
            expected = {id: v for id, v in expected.items() if id not in ids}
        elif action == "optimize":
            backend.optimize()
        elif durable:
            backend.close()
            backend = MemoryBackend(place)
            assert backend.open() == samples.schema()
    fresh = samples.backend()
    for id in sorted(expected, reverse=True):  # one by one, in another order
        fresh.upsert(samples.batch([id], expected[id]))
    assert same_content(backend, fresh, samples)
    backend.close()
    fresh.close()


def test_large_segments_reopen_from_their_arrays_with_the_same_content(tmp_path: Path, samples: Any) -> None:
    ids = [f"d{number}" for number in range(5000)]
    backend = samples.backend(tmp_path / "index", ids)
    before = backend.search(samples.requests())
    assert list((tmp_path / "index").glob("segments/*/retriever-0.rows.npy"))
    backend.close()
    reopened = MemoryBackend(tmp_path / "index")
    reopened.open()
    assert reopened.search(samples.requests()) == before
    assert same_content(reopened, samples.backend(None, ids), samples)


def test_merging_keeps_the_number_of_segments_small(samples: Any) -> None:
    backend = samples.backend()
    for number in range(200):
        backend.upsert(samples.batch([f"x{number}"]))
    if backend._merger is not None:
        backend._merger.join()
    assert backend.count() == 200
    assert backend.describe()["segments"] < 2 * merging.FACTOR


def test_a_change_during_a_merge_is_not_lost(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = samples.backend()
    inside, go_on = threading.Event(), threading.Event()
    merge = type(backend)._adding

    def slow(self: MemoryBackend, *arguments: Any) -> Any:
        if threading.current_thread().name == "hybridsearch-merge":
            inside.set()
            go_on.wait(20)
        return merge(self, *arguments)

    monkeypatch.setattr(MemoryBackend, "_adding", slow)
    for id in IDS[: merging.FACTOR]:
        backend.upsert(samples.batch([id]))
    assert inside.wait(20)
    backend.delete([IDS[0]])
    backend.upsert(samples.batch([IDS[1]], version=5))
    go_on.set()
    assert backend._merger is not None
    backend._merger.join()
    fresh = samples.backend(None, IDS[2 : merging.FACTOR])
    fresh.upsert(samples.batch([IDS[1]], version=5))
    assert backend.describe()["segments"] == 2
    assert same_content(backend, fresh, samples)


def test_many_readers_see_only_whole_batches_while_one_writes(tmp_path: Path, samples: Any) -> None:
    backend = samples.backend(tmp_path / "index", IDS)
    stop, problems = threading.Event(), []
    query = SparseQuery(tuple(f"t{n}" for n in range(40)), np.ones(40, dtype=np.float32))

    def read() -> None:
        try:
            while not stop.is_set():
                ranking = backend.search([Request("sparse", query, 100)])[0]
                versions = {d.metadata["v"] for d in backend.fetch(IDS) if d is not None}
                if len(ranking) < len(IDS) or len(versions) != 1 or backend.count() != len(IDS):
                    problems.append((len(ranking), versions))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(1, 13):
        backend.upsert(samples.batch(IDS, version))
    stop.set()
    for thread in threads:
        thread.join()
    backend.close()
    assert problems == []


def test_scan_gives_the_vectors_as_they_were_upserted(samples: Any) -> None:
    backend = samples.backend(None, IDS)
    backend.delete(IDS[:7])
    copy = samples.backend()
    sizes = []
    for batch in backend.scan(batch_size=10):
        sizes.append(len(batch))
        copy.upsert(batch)
        original = samples.batch([document.id for document in batch.documents])
        assert np.array_equal(batch.vectors["dense"].array, original.vectors["dense"].array)
        for name in ("bm25", "sparse"):
            found, given = batch.vectors[name], original.vectors[name]
            columns = [given.vocabulary.index[term] for term in found.vocabulary.terms]
            assert np.array_equal(found.matrix.toarray(), given.matrix.toarray()[:, columns])
            assert found.matrix.sum() == pytest.approx(given.matrix.sum())
    assert sizes == [10, 10, 10, 10, 10, 3]
    assert same_content(backend, copy, samples)


def test_contributions_sum_to_the_score(samples: Any) -> None:
    backend = samples.backend(None, IDS)
    request = samples.requests()[0]
    ranking = backend.search([request])[0]
    explained = backend.explain(request, [*ranking.ids, "unknown"])
    assert explained[-1] == {}
    assert [sum(terms.values()) for terms in explained[:-1]] == pytest.approx(ranking.scores.tolist(), rel=1e-6)
    assert set().union(*explained) == {"t3", "t1"}


def test_a_saved_index_opens_with_the_same_content(tmp_path: Path, samples: Any) -> None:
    backend = samples.backend(None, IDS)
    backend.delete(IDS[:3])
    backend.save(tmp_path / "deep" / "saved")
    saved = MemoryBackend(tmp_path / "deep" / "saved")
    assert saved.open() == samples.schema()
    assert same_content(backend, saved, samples)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["saved"]


def test_saving_replaces_an_index_only_when_told_to(tmp_path: Path, samples: Any) -> None:
    samples.backend(None, IDS[:5]).save(tmp_path / "saved")
    new = samples.backend(None, IDS)
    with pytest.raises(IndexExistsError, match="already"):
        new.save(tmp_path / "saved")
    new.save(tmp_path / "saved", overwrite=True)
    saved = MemoryBackend(tmp_path / "saved")
    saved.open()
    assert same_content(new, saved, samples)


def test_saving_never_touches_a_folder_of_something_else(tmp_path: Path, samples: Any) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    for overwrite in (False, True):
        with pytest.raises(IndexExistsError, match="not an index"):
            samples.backend(None, IDS).save(tmp_path / "photos", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_saving_removes_what_a_killed_save_left(tmp_path: Path, samples: Any) -> None:
    leftover = tmp_path / ".saved.0123abcd.saving"
    abandoned = samples.backend(leftover, IDS)
    abandoned.close()
    samples.backend(None, IDS).save(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_second_writer_is_refused_by_name_of_the_folder(tmp_path: Path, samples: Any) -> None:
    first = samples.backend(tmp_path / "index", IDS)
    second = MemoryBackend(tmp_path / "index")
    second.open()
    with pytest.raises(IndexLockedError, match="index"):
        second.delete(IDS)
    assert second.count() == len(IDS)
    first.delete(IDS[:10])
    first.close()
    assert second.delete(IDS[:20]) == 10  # it saw what the first one did
    assert second.count() == len(IDS) - 20


def test_writers_that_take_turns_keep_each_others_changes(tmp_path: Path, samples: Any) -> None:
    samples.backend(tmp_path / "index", []).close()
    writers = [MemoryBackend(tmp_path / "index", turns=30) for _ in range(3)]

    def write(writer: MemoryBackend, ids: list[str]) -> None:
        writer.open()
        for id in ids:
            writer.upsert(samples.batch([id]))
        writer.delete(ids[:5])

    threads = [threading.Thread(target=write, args=(writer, IDS[number::3])) for number, writer in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = samples.backend(None, IDS[15:])  # each has deleted the first five of its documents
    for writer in writers:
        writer.reopen()
        assert same_content(writer, expected, samples)
        writer.close()


def test_a_writer_whose_turn_does_not_come_is_refused(tmp_path: Path, samples: Any) -> None:
    first = samples.backend(tmp_path / "index", IDS)
    second = MemoryBackend(tmp_path / "index", turns=0.05)
    second.open()
    with pytest.raises(IndexLockedError, match="index"):
        second.delete(IDS)
    first.close()
    assert second.delete(IDS[:20]) == 20
    third = MemoryBackend(tmp_path / "index")
    third.open()
    assert third.delete(IDS) == len(IDS) - 20  # the second one has let go of the lock


def test_creating_over_an_index_is_refused(tmp_path: Path, samples: Any) -> None:
    samples.backend(tmp_path / "index", IDS).close()
    with pytest.raises(IndexExistsError, match="already"):
        MemoryBackend(tmp_path / "index").create(samples.schema())
    backend = samples.backend()
    with pytest.raises(IndexExistsError, match="already"):
        backend.create(samples.schema())


def test_a_place_without_an_index_opens_as_none(tmp_path: Path) -> None:
    assert MemoryBackend(tmp_path / "nothing").open() is None
    assert MemoryBackend().open() is None


@pytest.mark.parametrize("fails", ["hybridsearch.corpus.store.write_part", "hybridsearch.corpus.store.os.fsync"])
def test_a_full_disk_during_an_upsert_leaves_the_old_state(
    tmp_path: Path, samples: Any, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    backend = samples.backend(tmp_path / "index", IDS[:20])
    files = sorted((tmp_path / "index").rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(fails, no_space)
        with pytest.raises(StorageError, match="intact"):
            backend.upsert(samples.batch(IDS, 1))
    assert sorted((tmp_path / "index").rglob("*")) == files
    assert same_content(backend, samples.backend(None, IDS[:20]), samples)
    backend.upsert(samples.batch(IDS))
    backend.close()
    reopened = MemoryBackend(tmp_path / "index")
    reopened.open()
    assert same_content(reopened, samples.backend(None, IDS), samples)


def test_a_full_disk_during_a_deletion_leaves_the_old_state(
    tmp_path: Path, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = samples.backend(tmp_path / "index", IDS)
    files = sorted((tmp_path / "index").rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr("hybridsearch.corpus.store.os.fsync", no_space)
        with pytest.raises(StorageError, match="intact"):
            backend.delete(IDS[:5])
    assert sorted((tmp_path / "index").rglob("*")) == files
    assert same_content(backend, samples.backend(None, IDS), samples)
    assert backend.delete(IDS[:5]) == 5
    backend.close()


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def test_use_after_close_says_so(samples: Any) -> None:
    backend = samples.backend(None, IDS)
    backend.close()
    backend.close()
    calls: list[Callable[[], object]] = [
        backend.count,
        backend.refresh,
        backend.open,
        lambda: backend.fetch(IDS),
        lambda: backend.search(samples.requests()),
        lambda: backend.upsert(samples.batch(IDS)),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="closed"):
            call()


def test_use_before_create_says_so(samples: Any) -> None:
    with pytest.raises(BackendError, match="create"):
        MemoryBackend().search(samples.requests())


def test_wrong_batches_and_requests_are_refused_with_a_sentence(samples: Any) -> None:
    backend = samples.backend(None, IDS)
    good = samples.batch(["a"])
    wide = DenseVectors(np.ones((1, 9), dtype=np.float32))
    batches = [
        EncodedBatch(good.documents, {"bm25": good.vectors["bm25"]}),
        EncodedBatch(good.documents, {**good.vectors, "dense": wide}),
        EncodedBatch(good.documents, {**good.vectors, "dense": good.vectors["sparse"]}),
        samples.batch(["a", "a"]),
    ]
    for batch in batches:
        with pytest.raises(InvalidArgumentError):
            backend.upsert(batch)
    query = SparseQuery(("t1",), np.float32([1]))
    vector = np.float32([1, 0, 0, 0, 0, 0, 0, 0])
    requests = [
        Request("unknown", query, 5),
        Request("bm25", vector, 5),
        Request("dense", query, 5),
        Request("dense", vector[:3], 5),
        Request("dense", vector * np.float32(np.nan), 5),
        Request("dense", vector * np.float32(3), 5),
        Request("bm25", query, 0),
    ]
    for request in requests:
        with pytest.raises(InvalidArgumentError):
            backend.search([request])
    with pytest.raises(InvalidArgumentError, match="dense"):
        backend.explain(Request("dense", vector, 5), ["d1"])
    assert same_content(backend, samples.backend(None, IDS), samples)


def test_an_empty_index_answers_everything(samples: Any) -> None:
    backend = samples.backend()
    assert [len(ranking) for ranking in backend.search(samples.requests())] == [0] * 13
    assert backend.count(Filter.parse({"n": 1})) == 0
    assert list(backend.scan()) == []
    assert backend.delete(["a"]) == 0


def test_a_graph_finds_nearly_what_exact_search_finds_with_the_same_scores(tmp_path: Path, samples: Any) -> None:
    pytest.importorskip("usearch", reason="pip install 'hybridsearch[hnsw]'")
    ids = [str(number) for number in range(9000)]
    samples.backend(None, ids).save(tmp_path / "index")
    exact, graph = MemoryBackend(tmp_path / "index"), MemoryBackend(tmp_path / "index", hnsw=True)
    exact.open()
    graph.open()
    assert graph.capabilities.approximate == {"dense", "multi_vector"}
    graph.delete(ids[::3])
    exact.close()
    exact = MemoryBackend(tmp_path / "index")
    exact.open()
    requests = samples.requests()[-3:]
    for a, b in zip(exact.search(requests), graph.search(requests), strict=True):
        assert len(b) == 10
        assert len(set(a.ids) & set(b.ids)) >= 9
        scores = dict(a)
        assert all(scores[id] == score for id, score in b if id in scores)
    filtered = [Request(r.retriever, r.query, r.k, Filter.parse({"n": 3})) for r in requests]
    assert exact.search(filtered) == graph.search(filtered)
    graph.optimize()
    graph.close()
    again = MemoryBackend(tmp_path / "index", hnsw=True)
    again.open()
    assert len(again.search(requests)[0]) == 10


def test_a_bulk_load_ends_as_one_segment_and_a_small_addition_leaves_it_alone(samples: Any) -> None:
    backend = samples.backend()
    for start in range(0, 60, 10):
        backend.upsert(samples.batch([f"d{number}" for number in range(start, start + 10)]))
    backend.refresh()
    assert backend.describe()["segments"] == 1
    backend.upsert(samples.batch(["d0", "new"], version=1))
    backend.refresh()
    assert backend.describe()["segments"] == 2
