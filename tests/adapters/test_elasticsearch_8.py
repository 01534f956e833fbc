"""Tests of the Elasticsearch backend with a client of version 8, which is installed in another folder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

import elasticsearch
import orjson

from hybridsearch.adapters.elasticsearch import ElasticsearchBackend
from hybridsearch.backends import Kind, Request
from hybridsearch.ranking import Ranking
from hybridsearch.testing import samples

KINDS: tuple[Kind, ...] = ("lexical", "sparse", "dense")
SCHEMA = samples.make_schema(frozenset(KINDS), average_length=samples.FROZEN_LENGTH)


@pytest.fixture
def engine() -> str:
    return "elasticsearch"


@pytest.fixture(scope="module")
def client_8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the newest client of version 8 and its transport."""
    folder = tmp_path_factory.mktemp("client")
    packages = ["elasticsearch>=8.15,<9", "elastic-transport>=8.15,<9"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *packages]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip could not install {packages[0]}: {done.stderr[-300:]}")
    return folder


@pytest.mark.slow
def test_a_client_of_version_8_writes_and_finds_the_same_as_one_of_version_9(
    make: Callable[..., ElasticsearchBackend], client_8: Path
) -> None:
    assert elasticsearch.__version__ >= (9,)
    ours = make()
    ours.create(SCHEMA)
    program = [sys.executable, "-W", "error", __file__, f"elasticsearch://{ours.address.hosts[0][0]}"]
    program[-1] += f":{ours.address.hosts[0][1]}/{ours.address.index}"
    environment = os.environ | {"PYTHONPATH": str(client_8)}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    theirs = orjson.loads(done.stdout)
    assert theirs["client"][0] == 8
    assert theirs["rankings"] == theirs["awaited"] == written_out(ours.search(requests()))
    assert ours.count() == len(samples.random_items())


def requests() -> list[Request]:
    return [Request(kind, query, 10) for kind in KINDS for query in samples.random_queries(kind)]


def written_out(rankings: list[Ranking]) -> list[list[list[object]]]:
    return [[list(pair) for pair in ranking] for ranking in rankings]


def use(location: str) -> None:
    """Write to the index and search it, in another process."""
    backend = ElasticsearchBackend(location)
    schema = backend.open()
    assert schema is not None
    backend.load([samples.encode(samples.random_items(), schema)])

    async def ask() -> list[Ranking]:
        rankings = await backend.asearch(requests())
        await backend.aclose()
        return rankings

    answer = {"client": elasticsearch.__version__, "rankings": written_out(backend.search(requests()))}
    answer["awaited"] = written_out(asyncio.run(ask()))
    sys.stdout.buffer.write(orjson.dumps(answer))


if __name__ == "__main__":
    use(sys.argv[1])
