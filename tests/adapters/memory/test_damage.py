"""Tests of damaged and hostile folders: damage is found or does no harm, and nothing crashes.

This file is also a program: `python test_damage.py FOLDER SEED COUNT MODES...`. It damages copies of an index and uses
each copy in another process. It prints the results as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridsearch.adapters.memory import MemoryBackend
from hybridsearch.backends import Schema
from hybridsearch.corpus import store as store_module
from hybridsearch.documents import Document
from hybridsearch.errors import HybridSearchError, IndexCorruptedError
from hybridsearch.filters import Filter
from hybridsearch.vectors import EncodedBatch, PassageSpans, SparseVectors

IDS = [str(number) for number in range(4200)]
FILTERS = [Filter.parse(filter) for filter in ({"n": 3}, {"v": {"$gte": 1}}, {"n": {"$in": [1, 2]}}, {"id": "17"})]

MODES = ("verify", "quick", "bounds", "hostile")
"""The checksums to compare: of all files, of small files (verify=False), of none, or of all after new checksums."""


PASSAGES = "passages"
"""An argument of this program: the index has passages."""


def sample_maker() -> Any:
    from conftest import Samples  # in the folder of this program

    return Samples(passages=PASSAGES in sys.argv)


def make(folder: Path) -> None:
    """An index with a segment that has arrays, small segments without arrays, and deleted documents."""
    sample = sample_maker()
    backend = sample.backend(folder, IDS)
    backend.upsert(sample.batch(["small", "7"], 1))
    backend.delete(["9", "10"])
    backend.close()


def answers(backend: MemoryBackend) -> Any:
    """The answers to all kinds of requests, as plain values."""
    requests = sample_maker().requests()
    found = [(ranking.ids, ranking.scores.tolist(), ranking.passages) for ranking in backend.search(requests)]
    filtered = [type(requests[0])(r.retriever, r.query, r.k, f) for r in requests[::4] for f in FILTERS]
    found += [(ranking.ids, ranking.scores.tolist(), None) for ranking in backend.search(filtered)]
    explained = backend.explain(requests[0], IDS[:50])
    counts = [backend.count(), *map(backend.count, FILTERS)]
    documents = [None if d is None else d.to_dict() for d in backend.fetch([*IDS[::13], "small", "7", "nobody"])]
    scanned = {}
    for batch in backend.scan(500):
        whole = [document.to_dict() for document in batch.documents]
        passages = batch.passages or PassageSpans.of([[(0, 0)]] * len(batch))
        owners, spans = passages.owners.tolist(), passages.spans.tolist()
        for vectors in batch.vectors.values():
            rows = vectors.matrix.toarray() if isinstance(vectors, SparseVectors) else vectors.array
            terms = vectors.vocabulary.terms if isinstance(vectors, SparseVectors) else range(rows.shape[1])
            order = sorted(range(len(terms)), key=terms.__getitem__)
            named = [terms[number] for number in order]
            for number, span, row in zip(owners, spans, rows[:, order].tolist(), strict=True):
                scanned.setdefault(batch.documents[number].id, [whole[number]]).append([span, named, row])
    return found, explained, counts, documents, sorted(scanned.items())


def change(backend: MemoryBackend) -> list[str]:
    """Make some changes and a merge. Returns the content after them."""
    sample = sample_maker()
    backend.upsert(sample.batch(["new", "17"], 2))
    backend.delete(["18"])
    backend.optimize()
    return sorted(document.id for batch in backend.scan() for document in batch.documents)


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "write.lock"]


ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, 0.5, float("nan"), float("inf"), "", "a", "..", "../..", "/etc/passwd",
    "segments", "x\0y", ".", [], {}, [[]], {"a": {}}, "part.parquet", "manifest.json", "../manifest.json", "con", "ä/ö",
]  # fmt: skip


def spoil_bytes(raw: bytes, rng: random.Random) -> bytes:
    """`raw` with a random change."""
    at = rng.randrange(len(raw))
    length = rng.choice([1, 2, 4, 8, 64])
    kind = rng.choice(["bit", "random", "zero", "ones", "swap", "head", "cut", "more"])
    if kind == "bit":
        return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
    if kind == "head":
        at = rng.randrange(min(len(raw), 128))
    if kind == "cut":
        return raw[: at // 8 * 8]
    if kind == "more":
        return raw + rng.randbytes(length)
    at = at // length * length
    new = {"zero": bytes(length), "ones": b"\xff" * length}.get(kind, rng.randbytes(length))
    if kind == "swap":
        other = rng.randrange(len(raw)) // length * length
        new = raw[other : other + length]
    return (raw[:at] + new + raw[at + length :])[: len(raw)]


def spoil_json(content: Any, rng: random.Random) -> None:
    """Replace one value at any depth by an odd one."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = content[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.2:
            break
        content = inner
    how = rng.random()
    if how < 0.15 and isinstance(content, dict):
        del content[key]
    elif how < 0.3 and isinstance(content, list):
        content.append(inner)
    elif how < 0.4 and isinstance(content, dict):
        content[rng.choice(["../x", "/x", "..", "a\0", "", "deleted-0.npy"])] = content.pop(key)
    elif how < 0.45:
        content[key] = [[[[[[inner]]]]]] * 3
    else:
        content[key] = rng.choice(ODD)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write a file and its checksum, like the store."""
    content = {key: value for key, value in content.items() if key != "checksum"}
    checksum = zlib.crc32(json.dumps(content, indent=1).encode())
    raw = json.dumps({**content, "checksum": checksum}, indent=1).encode() + b"\n"
    (folder / "manifest.json").write_bytes(raw)


def damage(folder: Path, rng: random.Random, hostile: bool) -> str:
    """Damage a random file. Returns its path."""
    files = files_of(folder)
    path = rng.choice(files)
    if path.name == "manifest.json" or (hostile and rng.random() < 0.4):
        path = folder / "manifest.json"
        if hostile:
            content = json.loads(path.read_bytes())
            for _ in range(rng.choice([1, 1, 1, 3])):
                spoil_json(content, rng)
            write_manifest(folder, content)
            return path.name
    raw = path.read_bytes()
    how = rng.random()
    if how < 0.03:
        path.unlink()
    elif how < 0.06:
        path.write_bytes(rng.choice(files).read_bytes() if path.exists() else b"")
    elif how < 0.08:
        path.unlink()
        path.mkdir()
    elif how < 0.1:
        path.unlink()
        path.symlink_to(rng.choice(["/dev/zero", "/etc", "/nowhere", str(folder / "manifest.json")]))
    else:
        path.write_bytes(spoil_bytes(raw, rng))
    if hostile and path.is_file():
        content = json.loads((folder / "manifest.json").read_bytes())
        for part in content["parts"]:
            if part["name"] == path.parent.name:
                raw = path.read_bytes()
                part["files"][path.name] = {"size": len(raw), "crc32": zlib.crc32(raw)}
        write_manifest(folder, content)
    return path.name


def outcome(folder: Path, mode: str, right: Any, after: list[str]) -> str:
    """The result of using a damaged index: "found", "same", "wrong", or an error that is not ours."""
    try:
        if mode == "bounds":
            store_module.SMALL_FILE = -1
        backend = MemoryBackend(folder, verify=mode in ("verify", "hostile"))
        if backend.open() is None:
            return "found"
        if answers(backend) != right:
            return "wrong"
        if change(backend) != after:
            return "wrong after changes"
        backend.close()
        again = MemoryBackend(folder, verify=False)
        again.open()
        if sorted(document.id for batch in again.scan() for document in batch.documents) != after:
            return "wrong after changes"
    except HybridSearchError as error:
        return "found" if "\n" not in str(error) and "\0" not in str(error) else f"foreign {error!r}"
    except BaseException as error:
        return f"foreign {error!r} {traceback.format_exc()[-600:]}"
    return "same"


def in_a_process(work: Callable[[], str], seconds: float = 60.0) -> str:
    """The result of `work` in a forked process, or "crash" or "hang"."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.write(write, work().encode()[:4000])
        os._exit(0)
    os.close(write)
    deadline = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang"
        time.sleep(0.002)
    said = os.read(read, 4096).decode()
    os.close(read)
    return said or "crash"


def campaign(folder: Path, seed: int, count: int, *modes: str) -> dict[str, dict[str, int]]:
    """The counts by mode. All results were right."""
    command = [sys.executable, __file__, str(folder), str(seed), str(count), *modes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for mode, (counts, remarkable) in said.items():
        allowed = {"verify": {"found", "same"}, "quick": {"found", "same"}}.get(mode, {"found", "same", "wrong"})
        assert counts.keys() <= allowed, (mode, remarkable)
        assert counts["found"] > count / 2
        wrong = {name for _, name, _ in remarkable if not name.startswith("deleted-")}  # rows deleted, another one
        assert mode == "hostile" or wrong <= UNSEEN, (mode, remarkable)
    return {mode: counts for mode, (counts, _) in said.items()}


UNSEEN = {
    f"{name}.npy"
    for name in (
        *("documents.ids", "documents.texts", "documents.hashes", "metadata.fields", "metadata.rows", "metadata.codes"),
        *("metadata.values", "metadata.ends", "retriever-0.lengths", "retriever-1.lengths", "retriever-2.vectors"),
        *(f"retriever-2.{name}" for name in ("norms", "codes", "scales", "residuals")),
        *("documents.order", "documents.text_starts", "documents.id_starts"),
        *("passages.offsets", "passages.spans"),
        *(f"retriever-{n}.{name}" for n in (0, 1) for name in ("rows", "values", "terms", "term_starts", "indptr")),
    )
}
"""If the checksum of a file is not compared, the file may have other possible values."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_whatever_is_damaged_is_found_or_does_no_harm(tmp_path: Path) -> None:
    campaign(tmp_path, 0, 5, *MODES)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_damaged_passages_are_found_or_do_no_harm(tmp_path: Path) -> None:
    campaign(tmp_path, 100, 5, *MODES, PASSAGES)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_thousand_damaged_folders_with_passages_are_found_or_do_no_harm(tmp_path: Path) -> None:
    campaign(tmp_path, 5000, 2000, *MODES, PASSAGES)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_thousand_damaged_folders_are_damaged_folders_are_found_or_do_no_harm(tmp_path: Path) -> None:
    campaign(tmp_path, 1000, 2000, *MODES)


@pytest.fixture
def intact(tmp_path: Path) -> Path:
    backend = MemoryBackend(tmp_path / "index")
    backend.create(Schema({}))
    backend.upsert(EncodedBatch([Document("a", "A text.")], {}))
    backend.close()
    return tmp_path / "index"


def part_of(content: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = content["parts"][0]
    return part


@pytest.mark.parametrize(
    "change",
    [
        lambda content: part_of(content).update(name="../elsewhere"),
        lambda content: part_of(content).update(name="/etc"),
        lambda content: part_of(content).update(rows=-1),
        lambda content: part_of(content).update(rows=2**40),
        lambda content: part_of(content).update(rows=True),
        lambda content: part_of(content).update(rows=float("nan")),
        lambda content: part_of(content).update(rows=2),
        lambda content: part_of(content).update(deleted="../manifest.json"),
        lambda content: part_of(content)["files"].update({"../../x": {"size": 1, "crc32": 1}}),
        lambda content: part_of(content)["files"].update({"x\0.npy": {"size": 1, "crc32": 1}}),
        lambda content: part_of(content)["files"].clear(),
        lambda content: content["parts"].append(content["parts"][0]),
        lambda content: content.update(generation=-1),
        lambda content: content.update(version=True),
        lambda content: content["schema"]["retrievers"].update(x={"kind": "dense"}),
    ],
)
def test_a_manifest_that_says_something_impossible_is_refused(intact: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads((intact / "manifest.json").read_bytes())
    change(content)
    write_manifest(intact, content)
    for verify in (True, False):
        with pytest.raises(IndexCorruptedError) as caught:
            MemoryBackend(intact, verify=verify).open()
        assert "index the documents again" in str(caught.value)
        assert "\0" not in str(caught.value)


def nothing_in_place_of(table: pa.Table, column: str) -> pa.Table:
    """Write a file that has a null among its terms, values or texts."""
    number = table.schema.get_field_index(column)
    kept = table.column(column).to_pylist()
    odd = [[*kept[0][:-1], None], *kept[1:]] if isinstance(kept[0], list) else [None, *kept[1:]]
    kind = table.schema.field(column).type
    plain = pa.list_(pa.string()) if pa.types.is_list(kind) and column.endswith("terms") else kind
    array = pa.array(odd, plain)
    if plain != kind:
        array = pa.ListArray.from_arrays(array.offsets, array.flatten().dictionary_encode())
    return table.set_column(number, column, array)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: nothing_in_place_of(table, "sparse.terms"),
        lambda table: nothing_in_place_of(table, "sparse.values"),
        lambda table: nothing_in_place_of(table, "text"),
        lambda table: nothing_in_place_of(table, "id"),
        lambda table: table.drop_columns(["dense"]),
        lambda table: table.slice(1),
        lambda table: pa.concat_tables([table, table.slice(0, 1)]),
        lambda table: table.set_column(0, "id", pa.array([1] * len(table))),
        lambda table: table.set_column(3, "metadata", pa.array(["[" * 100_000] * len(table))),
        lambda table: table.set_column(3, "metadata", pa.array(["3"] * len(table))),
        lambda table: table.set_column(0, "id", table.column("title")),
    ],
)
def test_a_part_that_holds_something_impossible_is_refused(
    tmp_path: Path, samples: Any, change: Callable[[pa.Table], pa.Table]
) -> None:
    refuses(samples, tmp_path / "index", change)


def in_place_of(table: pa.Table, column: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    """Write a file that has another list in a column of numbers."""
    kind = table.schema.field(column).type
    lists = change(table.column(column).to_pylist())
    return table.set_column(table.schema.get_field_index(column), column, pa.array(lists, kind))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: in_place_of(table, "passages.start", lambda lists: [[], *lists[1:]]),
        lambda table: in_place_of(table, "passages.start", lambda lists: [one[::-1] for one in lists]),
        lambda table: in_place_of(table, "passages.end", lambda lists: [[-1] * len(one) for one in lists]),
        lambda table: in_place_of(table, "passages.end", lambda lists: [[*one, 9] for one in lists]),
        lambda table: in_place_of(table, "passages.end", lambda lists: [[None] * len(one) for one in lists]),
        lambda table: in_place_of(table, "bm25.counts", lambda lists: [[*one, 0] for one in lists]),
        lambda table: in_place_of(table, "bm25.counts", lambda lists: [[n + 1 for n in one] for one in lists]),
        lambda table: in_place_of(table, "sparse.counts", lambda lists: [[-n for n in one] for one in lists]),
        lambda table: in_place_of(table, "sparse.counts", lambda lists: [[None] * len(one) for one in lists]),
        lambda table: in_place_of(table, "dense", lambda lists: [one[:-1] for one in lists]),
        lambda table: in_place_of(table, "dense", lambda lists: [[*lists[0], *lists[1]], [], *lists[2:]]),
        lambda table: table.drop_columns(["passages.start"]),
        lambda table: table.drop_columns(["sparse.counts"]),
    ],
)
def test_a_part_with_impossible_passages_is_refused(
    tmp_path: Path, samples: Any, change: Callable[[pa.Table], pa.Table]
) -> None:
    refuses(type(samples)(passages=True), tmp_path / "index", change)


def refuses(samples: Any, folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Assert that an index is refused after a change of its Parquet file."""
    batch = samples.batch(["a", "b", "c"])
    backend = MemoryBackend(folder)
    backend.create(samples.schema())
    backend.upsert(replace(batch, documents=[replace(document, title="") for document in batch.documents]))
    backend.close()
    path = next(folder.rglob("part.parquet"))
    pq.write_table(change(pq.read_table(path)), path)
    content = json.loads((folder / "manifest.json").read_bytes())
    raw = path.read_bytes()
    part_of(content)["files"]["part.parquet"] = {"size": len(raw), "crc32": zlib.crc32(raw)}
    write_manifest(folder, content)
    with pytest.raises(IndexCorruptedError, match="index the documents again"):
        MemoryBackend(folder).open()


@pytest.mark.parametrize("linked", ["segments", "write.lock", "manifest.json.tmp"])
def test_a_link_leads_no_writer_out_of_the_index(intact: Path, tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    path = intact / linked
    if linked == "segments":
        path.rename(outside / "segments")
        path.symlink_to(outside / "segments")
        (outside / "segments" / "precious").mkdir()
    else:
        path.unlink(missing_ok=True)
        path.symlink_to(outside / "precious")
    with contextlib.suppress(IndexCorruptedError):
        backend = MemoryBackend(intact)
        backend.open()
        backend.upsert(EncodedBatch([Document("b", "A text.")], {}))
        backend.close()
    assert (outside / "precious").read_text() == "mine"
    assert linked != "segments" or (outside / "segments" / "precious").is_dir()


def test_a_document_that_two_parts_hold_is_refused(intact: Path) -> None:
    content = json.loads((intact / "manifest.json").read_bytes())
    part = part_of(content)
    shutil.copytree(intact / "segments" / part["name"], intact / "segments" / "copy")
    content["parts"].append({**part, "name": "copy"})
    write_manifest(intact, content)
    with pytest.raises(IndexCorruptedError, match="'a' twice"):
        MemoryBackend(intact).open()


def main(folder: Path, seed: int, count: int, modes: list[str]) -> None:
    intact = folder / "intact"
    make(intact)
    said = {}
    for mode in modes:
        if mode == PASSAGES:
            continue
        said[mode] = spoil_many(folder, intact, mode, seed, count)
    print(json.dumps(said), flush=True)


def spoil_many(folder: Path, intact: Path, mode: str, seed: int, count: int) -> tuple[Counter[str], list[Any]]:
    whole = folder / f"whole-{mode}"
    shutil.copytree(intact, whole)
    backend = MemoryBackend(whole)
    backend.open()
    right, after = answers(backend), change(backend)
    backend.close()
    counts: Counter[str] = Counter()
    remarkable = []
    for number in range(seed, seed + count):
        damaged = folder / f"damaged-{mode}"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(intact, damaged)
        rng = random.Random(f"{mode if mode == 'hostile' else ''} {number}")
        name = damage(damaged, rng, mode == "hostile")
        said = in_a_process(lambda: outcome(damaged, mode, right, after))  # noqa: B023
        counts[said.split()[0]] += 1
        if said not in ("found", "same"):
            remarkable.append((number, name, said))
    return counts, remarkable


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
