"""Tests of the code that OpenSearch and Elasticsearch share and that need no server: places, secrets and errors."""

from __future__ import annotations

import asyncio
import errno
import http.server
import logging
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

from hybridsearch.adapters.elasticsearch import ElasticsearchBackend
from hybridsearch.adapters.lucene.backend import LuceneBackend
from hybridsearch.adapters.opensearch import OpenSearchBackend
from hybridsearch.errors import BackendError, InvalidArgumentError, StorageError
from hybridsearch.places import connect
from hybridsearch.testing import samples

SCHEMA = samples.make_schema(frozenset({"lexical", "sparse", "dense"}), average_length=samples.FROZEN_LENGTH)
ENGINES = {"opensearch": OpenSearchBackend, "elasticsearch": ElasticsearchBackend}


@pytest.fixture(autouse=True)
def _closed_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End connections with their test, and not when Python frees them during another test."""
    made: list[LuceneBackend] = []
    for engine, backend in list(ENGINES.items()):

        def make(*place: Any, backend: type[LuceneBackend] = backend, **options: Any) -> LuceneBackend:
            made.append(backend(*place, **options))
            return made[-1]

        monkeypatch.setitem(ENGINES, engine, make)
    yield
    for one in made:
        one.close()


NODES = b'{"nodes":{"a":{"version":"%s","plugins":[{"name":"opensearch-knn"}]}}}'
FORBIDDEN = b'{"error":{"type":"security_exception","reason":"no permissions for cluster:monitor/nodes/info"}}'


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the settings of the servers of other tests."""
    for engine, what in product(ENGINES, ("URL", "USER", "PASSWORD", "API_KEY", "CA")):
        monkeypatch.delenv(f"HYBRIDSEARCH_{engine.upper()}_{what}", raising=False)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("", "missing"), ("Upper", "lower case"), ("a*b", r"contains '\*'"), ("-a", "start"), ("a" * 300, "255 bytes")],
)
def test_a_name_that_engines_do_not_allow_is_refused(engine: str, name: str, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        connect(f"{engine}://localhost:9200/{name}")


@pytest.mark.parametrize("place", ["{}://", "{}:///name", "{}://host:port/name", "{}+ftp://host/name"])
def test_a_place_without_a_host_is_refused(engine: str, place: str) -> None:
    with pytest.raises(InvalidArgumentError, match="write"):
        ENGINES[engine](place.format(engine))


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("http://search.example", ["http://search.example:9200"]),
        ("https://a:9201,b:9202/", ["https://a:9201", "https://b:9202"]),
        ("https://proxy/engines/one", ["https://proxy:9200/engines/one"]),
    ],
)
def test_a_place_without_a_host_is_on_the_server_that_the_environment_names(
    engine: str, url: str, nodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"HYBRIDSEARCH_{engine.upper()}_URL", url)
    address = ENGINES[engine](f"{engine}:///papers").address
    assert (address.urls, address.index) == (nodes, "papers")
    assert ENGINES[engine](f"{engine}://other:1/papers").address.urls == ["http://other:1"]


def test_tls_that_the_place_asks_for_is_kept_whatever_the_environment_says(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"HYBRIDSEARCH_{engine.upper()}_URL", "http://host")
    assert ENGINES[engine](f"{engine}+https:///papers").address.urls == ["https://host:9200"]


def test_the_user_of_the_servers_url_in_the_environment_asks_and_is_not_shown(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"HYBRIDSEARCH_{engine.upper()}_URL", "http://me:s3cr3t@127.0.0.1:1")
    backend = ENGINES[engine](f"{engine}:///papers")
    assert backend.address.headers == {"authorization": "Basic bWU6czNjcjN0"}  # base64 of me:s3cr3t
    with pytest.raises(BackendError, match="cannot be reached") as error:
        backend.open()
    with pytest.raises(InvalidArgumentError, match="upper case") as wrong:
        ENGINES[engine](f"{engine}:///PAPERS")
    assert not any("s3cr3t" in text for text in (repr(backend), str(error.value), str(wrong.value)))


@pytest.mark.parametrize("url", ["me:s3cr3t@host:9200", "ftp://me:s3cr3t@host", "https://", "https://me:s3/cr3t@host"])
def test_an_unusable_url_in_the_environment_is_named_but_not_shown(
    engine: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"HYBRIDSEARCH_{engine.upper()}_URL", url)
    with pytest.raises(InvalidArgumentError, match=r"set .* to a URL such as https://host:9200|%2F") as error:
        ENGINES[engine](f"{engine}:///papers")
    assert "s3" not in str(error.value)


def test_secrets_are_shown_nowhere(engine: str, monkeypatch: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    for location, options in (
        (f"{engine}://me:s3cr3t@127.0.0.1:1/name", {}),
        (f"{engine}://127.0.0.1:1/name", {"user": "me", "password": "s3cr3t"}),
        (f"{engine}://127.0.0.1:1/name", {"api_key": "s3cr3t"}),
    ):
        backend = ENGINES[engine](location, **options)
        assert "authorization" in backend.address.headers
        with pytest.raises(BackendError, match="cannot be reached") as error:
            backend.open()
        shown += [repr(backend), repr(backend.address), str(error.value), repr(error.value)]
    with pytest.raises(InvalidArgumentError) as wrong:
        ENGINES[engine](f"{engine}://me:s3cr3t@127.0.0.1:1/NAME")
    monkeypatch.setenv(f"HYBRIDSEARCH_{engine.upper()}_API_KEY", "s3cr3t")
    backend = ENGINES[engine](f"{engine}://127.0.0.1:1/name")
    assert backend.address.headers == {"authorization": "ApiKey s3cr3t"}
    shown += [str(wrong.value), repr(backend), caplog.text]
    assert not any("s3cr3t" in text or "czNjcjN0" in text for text in shown)


@pytest.mark.parametrize("key", ["s3cr3t\u20ac", "s3c\nr3t", "s3cr3t\x7f", " "])
def test_an_api_key_that_no_header_can_hold_is_refused_unseen(engine: str, key: str) -> None:
    with pytest.raises(InvalidArgumentError, match="API key") as error:
        ENGINES[engine](f"{engine}://localhost/name", api_key=key)
    assert "s3c" not in str(error.value)


def test_white_space_around_credentials_is_left_out(engine: str) -> None:
    place = f"{engine}://localhost/name"
    for padded, bare in (
        ({"api_key": " s3cr3t\r\n"}, {"api_key": "s3cr3t"}),
        ({"user": "me\n", "password": "s3cr3t\n"}, {"user": "me", "password": "s3cr3t"}),
    ):
        assert ENGINES[engine](place, **padded).address.headers == ENGINES[engine](place, **bare).address.headers


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"user": "me", "password": "s3cr3t"}, "Basic bWU6czNjcjN0"),  # base64 of me:s3cr3t
        ({"api_key": "s3cr3t"}, "ApiKey s3cr3t"),
    ],
)
def test_credentials_arrive_with_every_request_of_threads_and_event_loops(
    engine: str, options: dict[str, str], header: str
) -> None:
    heard: list[str | None] = []

    async def asend(backend: LuceneBackend) -> None:
        transport = backend.make_transport()
        await transport.asend("GET", "/name", None, "application/json", 5.0)
        await transport.aclose()

    with stub(lambda method, path: (404, b"{}"), heard=heard) as port:
        backend = ENGINES[engine](f"{engine}://127.0.0.1:{port}/name", **options)
        assert backend.open() is None
        assert set(heard) == {header}
        heard.clear()
        asyncio.run(asend(backend))
        assert set(heard) == {header}


def test_a_password_with_a_slash_as_it_is_reaches_no_host_and_no_message(engine: str) -> None:
    with pytest.raises(InvalidArgumentError, match="%2F") as error:
        connect(f"{engine}://me:12/34secret@127.0.0.1:9210/x")
    assert not any(part in str(error.value) for part in ("me:", "12", "34secret"))
    backend = ENGINES[engine](f"{engine}://me:12%2F34secret@127.0.0.1:9210/x")
    assert backend.address.hosts == (("127.0.0.1", 9210),)


@pytest.mark.parametrize(
    "options", [{"ef_search": 0}, {"ef_search": "9"}, {"verify": "false"}, {"refresh": 1}, {"timeout": 1e300}]
)
def test_an_option_of_another_type_is_named(engine: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        connect(f"{engine}://localhost/name", options)


def test_the_switch_that_makes_an_engine_approximate_is_true_or_false() -> None:
    for engine, option in (("opensearch", "two_phase"), ("elasticsearch", "prune")):
        with pytest.raises(InvalidArgumentError, match=f"{option} is 'no'"):
            connect(f"{engine}://localhost/name", {option: "no"})


def test_an_unknown_option_is_answered_with_those_that_there_are(engine: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"has no option 'hnsw'. Its options are dense, .*, ef_search, "):
        connect(f"{engine}://localhost/name", {"hnsw": True})


def test_a_url_with_one_slash_is_no_folder(engine: str) -> None:
    for place in (Path(f"{engine}://host:9200/name"), f"{engine}+https:/host/name", f"{engine}:name"):
        with pytest.raises(InvalidArgumentError, match="lacks the '//'"):
            connect(place)


def test_credentials_are_whole_or_refused(engine: str) -> None:
    for options in ({"user": "me"}, {"password": "s3cr3t"}, {"user": "me", "password": "a", "api_key": "b"}):
        with pytest.raises(InvalidArgumentError):
            ENGINES[engine](f"{engine}://localhost/name", **options)


def test_a_dead_server_is_one_sentence(engine: str) -> None:
    with pytest.raises(BackendError, match=r"at http://127\.0\.0\.1:1 cannot be reached .*refused"):
        ENGINES[engine](f"{engine}://127.0.0.1:1/name").open()
    with pytest.raises(BackendError, match="cannot be reached"):
        ENGINES[engine](f"{engine}://no-such-host.invalid/name").create(SCHEMA)


@pytest.mark.parametrize(
    ("status", "body", "type", "sentence"),
    [
        (401, b"", BackendError, "credentials"),
        (403, b'{"error":{"type":"security_exception","reason":"no"}}', BackendError, "no permission"),
        (403, b'{"error":{"type":"cluster_block_exception","reason":"read-only"}}', StorageError, "disk"),
        (429, b'{"error":{"type":"cluster_block_exception","reason":"flood-stage watermark"}}', StorageError, "disk"),
        (503, b'{"error":{"type":"cluster_block_exception","reason":"no master"}}', BackendError, "not ready"),
        (
            400,
            b'{"error":{"type":"mapper_parsing_exception","reason":"analyzer [english] has not been configured in x"}}',
            InvalidArgumentError,
            r"no analyzer 'english'\. Every server has 'standard'",
        ),
        (500, b'{"error":{"type":"odd_exception","reason":"odd"}}', BackendError, "odd_exception: odd"),
        (
            500,
            b'{"error":{"type":"search_phase_execution_exception","reason":"","root_cause":[],"failed_shards":[],'
            b'"caused_by":{"type":"node_not_connected_exception","reason":"[b] Node not connected"}}}',
            BackendError,
            "not ready .*Node not connected",
        ),
        (200, b"<html>Welcome to nginx</html>", BackendError, "does not answer like"),
        *((200, body, BackendError, "does not answer like") for body in (b"{}", b"[1]", b"null")),
        (502, b"<html>Bad gateway</html>", BackendError, "not ready"),
        (400, b'{"error":{"type":"media_type_header_exception","reason":"x"}}', BackendError, "does not work with the"),
        (200, b'{"a":{},"b":{}}', BackendError, "alias of 2 indexes"),
    ],
)
def test_each_refusal_has_its_sentence(
    engine: str, status: int, body: bytes, type: type[Exception], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridsearch.adapters.lucene.wire.channel._BUSY_WAIT", 0.0)  # some requests are repeated
    with stub(lambda method, path: (status, body)) as port, pytest.raises(type, match=sentence):
        ENGINES[engine](f"{engine}://127.0.0.1:{port}/name").open()


@pytest.mark.parametrize(
    ("engine", "version", "sentence"),
    [
        ("opensearch", b"2.3.0", "needs 2.17 or newer"),
        ("opensearch", b"9.0.0", "is Elasticsearch: write"),
        ("elasticsearch", b"7.17.3", "needs 8.15 or newer"),
        ("elasticsearch", b"3.6.0", "is OpenSearch: write"),
    ],
)
def test_a_server_of_another_version_is_refused(engine: str, version: bytes, sentence: str) -> None:
    with stub(lambda method, path: (200, NODES % version)) as port, pytest.raises(BackendError, match=sentence):
        ENGINES[engine](f"{engine}://127.0.0.1:{port}/name").create(SCHEMA)


def test_a_missing_plugin_is_named() -> None:
    with (
        stub(lambda method, path: (200, (NODES % b"3.6.0").replace(b"opensearch-knn", b"other"))) as port,
        pytest.raises(BackendError, match="no plugin opensearch-knn"),
    ):
        OpenSearchBackend(f"opensearch://127.0.0.1:{port}/name").create(SCHEMA)


def test_two_phase_search_is_refused_by_a_server_without_its_plugin() -> None:
    with (
        stub(lambda method, path: (200, NODES % b"3.6.0")) as port,
        pytest.raises(BackendError, match="no plugin opensearch-neural-search, which two_phase needs: install it"),
    ):
        OpenSearchBackend(f"opensearch://127.0.0.1:{port}/name", two_phase=True).create(SCHEMA)


def test_faiss_is_never_sent_to_a_node_that_may_lack_it() -> None:
    paths: list[str] = []
    with stub(lambda method, path: paths.append(f"{method} {path}") or (200, NODES % b"3.6.0")) as port:
        backend = OpenSearchBackend(f"opensearch://127.0.0.1:{port}/name", engine="faiss")
        with pytest.raises(BackendError, match="faiss kills a node"):
            backend.create(SCHEMA)
    assert all(path.startswith("GET") for path in paths)


def refusing_nodes(paths: list[str]) -> Callable[[str, str], tuple[int, bytes]]:
    """The answers of a server whose user may not read `_nodes`. The paths of its requests are added to `paths`."""

    def answer(method: str, path: str) -> tuple[int, bytes]:
        paths.append(f"{method} {path}")
        return (403, FORBIDDEN) if "_nodes" in path else (200, b'{"acknowledged":true}')

    return answer


def test_faiss_is_never_sent_to_nodes_that_may_not_be_asked_whether_they_have_it() -> None:
    paths: list[str] = []
    with stub(refusing_nodes(paths)) as port:
        backend = OpenSearchBackend(f"opensearch://127.0.0.1:{port}/name", engine="faiss")
        with pytest.raises(BackendError, match=r"may not read _nodes .* cluster:monitor/nodes/info, or .*lucene"):
            backend.create(SCHEMA)
    assert paths
    assert all(path.startswith("GET") for path in paths)


def test_an_index_can_be_made_by_those_who_may_not_read_nodes(engine: str) -> None:
    paths: list[str] = []
    with stub(refusing_nodes(paths)) as port:
        ENGINES[engine](f"{engine}://127.0.0.1:{port}/name").create(SCHEMA)
    assert paths[-1] == "PUT /name"


def test_the_mapping_says_which_engine_and_how_exact() -> None:
    retriever = SCHEMA.retrievers["dense"]
    graph = OpenSearchBackend("opensearch://localhost/name").dense_field(retriever)
    assert graph["method"]["engine"] == "lucene"
    assert "method" not in OpenSearchBackend("opensearch://localhost/name", dense="exact").dense_field(retriever)
    for options, type in (
        ({}, "hnsw"),
        ({"dense": "exact"}, "flat"),
        ({"quantization": "int8"}, "int8_hnsw"),
    ):
        field = ElasticsearchBackend("elasticsearch://localhost/name", **options).dense_field(retriever)
        assert field["index_options"] == {"type": type}


def test_what_a_busy_server_refuses_is_asked_again(engine: str) -> None:
    refused = [429, 503]
    busy = b'{"error":{"type":"es_rejected_execution_exception","reason":"queue is full"}}'
    with stub(lambda method, path: (refused.pop(), busy) if refused else (404, b"{}")) as port:
        assert ENGINES[engine](f"{engine}://127.0.0.1:{port}/name").open() is None
    assert not refused


def test_a_machine_whose_certificates_cannot_be_read_is_one_sentence(engine: str, monkeypatch: Any) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ssl, "create_default_context", unreadable)
    with pytest.raises(BackendError, match=r"certificates of this machine.*cannot be read \(\[Errno 5\]"):
        ENGINES[engine](f"{engine}+https://127.0.0.1:1/name").open()


def test_a_certificate_of_an_unknown_authority_is_one_sentence(engine: str, tmp_path: Path) -> None:
    certificate, key = tmp_path / "node.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with stub(lambda method, path: (404, b"{}"), context) as port:
        place = f"{engine}+https://localhost:{port}/name"
        with pytest.raises(BackendError, match=f"not trusted.*HYBRIDSEARCH_{engine.upper()}_CA"):
            ENGINES[engine](place).open()
        with pytest.raises(BackendError, match=r"TLS, write .*\+https"):
            ENGINES[engine](place.replace("+https", "")).open()
        assert ENGINES[engine](place, ca_file=certificate).open() is None
        with pytest.warns(Warning, match=r"[Vv]erif"):
            assert ENGINES[engine](place, verify=False).open() is None
    with (
        stub(lambda method, path: (404, b"{}")) as port,
        pytest.raises(BackendError, match=r"A TLS connection to .* failed"),
    ):
        ENGINES[engine](f"{engine}+https://localhost:{port}/name").open()
    with pytest.raises(InvalidArgumentError, match="CA file"):
        ENGINES[engine](place, ca_file=key)
    with pytest.raises(InvalidArgumentError, match="is for TLS"):
        ENGINES[engine](f"{engine}://localhost/name", ca_file=certificate)


def test_one_node_that_is_down_does_not_stop_a_cluster(engine: str) -> None:
    with stub(lambda method, path: (404, b"{}")) as port:
        backend = ENGINES[engine](f"{engine}://127.0.0.1:1,127.0.0.1:{port}/name")
        assert [backend.open() for _ in range(4)] == [None] * 4


@contextmanager
def stub(
    answer: Callable[[str, str], tuple[int, bytes]],
    context: ssl.SSLContext | None = None,
    heard: list[str | None] | None = None,
) -> Iterator[int]:
    """The port of a server that gives these answers. The Authorization headers of requests are added to `heard`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            if heard is not None:
                heard.append(self.headers.get("authorization"))
            status, body = answer(self.command, self.path)
            self.send_response(status)
            self.send_header("content-type", "application/json" if body[:1] == b"{" else "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
