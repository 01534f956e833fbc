"""Tests of requests through a forward proxy, and of requests that AWS Signature Version 4 signs.

Only the proxy of these tests knows the names of the servers. So a request that arrives came through the proxy.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from faulty_proxy import Exchange, FaultyProxy, passing
from forward_proxy import ForwardProxy
from servers import address_of

pytest.importorskip("opensearchpy", reason="pip install 'hybridsearch[opensearch]'")
pytest.importorskip("elasticsearch", reason="pip install 'hybridsearch[elasticsearch]'")

import hybridsearch as hs
from hybridsearch.adapters.lucene.wire.proxies import proxy_for
from hybridsearch.errors import BackendError, InvalidArgumentError
from hybridsearch.places import connect

NAME = "engine.test"
SECRETS = ("s3c/r3t", "s3c%2Fr3t", "bWU6czNjL3IzdA")  # the password of the proxy, in the URL, and in the header
KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "t0ken/of+session=="
DOCUMENTS = [{"id": "a", "text": "a wing gives lift"}, {"id": "b", "text": "a jet gives thrust"}]


@pytest.fixture(autouse=True)
def no_other_proxies(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def place(server: str, lucene_names: Callable[[str, str], str]) -> str:
    """The place of a new index on the real server."""
    return lucene_names(server, "index")


def finds(place: str, **options: Any) -> None:
    """Index, search in this thread and in an event loop, and close."""
    search = hs.HybridSearch({"bm25": hs.BM25()}, place, backend_options={"replicas": 0, **options})
    search.index(DOCUMENTS, show_progress_bar=False)

    async def asearch() -> list[str]:
        try:
            return (await search.asearch("lift")).ids
        finally:
            await search.aclose()

    assert search.search("thrust").ids == ["b"]
    assert asyncio.run(asearch()) == ["a"]


def named(place: str, name: str, port: int = 9200, tls: str = "") -> str:
    """The place on a server of another name."""
    scheme, index = place.partition("://")[0].partition("+")[0], place.rpartition("/")[2]
    return f"{scheme}{tls}://{name}:{port}/{index}"


def test_requests_go_through_the_proxy_of_plain_http(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyProxy(address_of(place), on="") as engine, ForwardProxy({NAME: ("127.0.0.1", port_of(engine))}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        finds(named(place, NAME))
        index = place.rpartition("/")[2]
        asked = [target.partition("?")[0] for _, target in proxy.seen]
        assert sum(asked.count(f"http://{NAME}:9200/{index}/{way}") for way in ("_search", "_msearch")) > 2
        assert len(engine.seen) == len(proxy.seen)
    assert not any(secret in caplog.text for secret in SECRETS)


def test_requests_over_tls_go_through_the_tunnel_of_the_proxy(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    authority, context = certificate(tmp_path)
    with (
        FaultyProxy(address_of(place), on="", context=context) as engine,
        ForwardProxy({NAME: ("127.0.0.1", port_of(engine))}) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url)
        finds(named(place, NAME, tls="+https"), ca_file=authority)
        assert set(proxy.seen) == {("CONNECT", f"{NAME}:9200")}
        with pytest.raises(BackendError, match=r"not trusted.*_CA"):
            connect(named(place, NAME, tls="+https")).open()
    assert not any(secret in caplog.text for secret in SECRETS)


@pytest.mark.parametrize("tls", ["", "+https"])
def test_what_a_proxy_refuses_is_one_sentence_that_names_the_variable(
    engine: str, tls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{engine}{tls}://{NAME}:9200/name"
    variable = "HTTPS_PROXY" if tls else "HTTP_PROXY"
    with ForwardProxy({}) as proxy:
        for url, problem in (
            (proxy.url, "502|Bad Gateway"),
            (proxy.url.replace("s3c", "wr0ng"), "does not accept the credentials of the request (HTTP 407)"),
            ("http://me:s3c%2Fr3t@127.0.0.1:1", "refused|reached"),
        ):
            monkeypatch.setenv(variable, url)
            with pytest.raises(BackendError, match=variable) as error:
                connect(place).open()
            assert not any(secret in str(error.value) for secret in (*SECRETS, "wr0ng"))
            assert any(part in str(error.value) for part in problem.split("|")), str(error.value)


def test_no_proxy_and_this_machine_are_asked_directly(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert connect(place).open() is None  # the loopback interface
    assert proxy_for("http", NAME, 9200) is not None
    for given in (NAME, "test", ".test", f"other,{NAME}:9200", "*"):
        monkeypatch.setenv("NO_PROXY", given)
        assert proxy_for("https", NAME, 9200) is None
    monkeypatch.setenv("NO_PROXY", f"other.test,{NAME}:9201")
    assert proxy_for("https", NAME, 9200) is not None


@pytest.mark.parametrize(
    "url", ["socks5://me:s3cr3t@proxy:1080", "http://me:s3cr3t@proxy:port", "http://", "http://p/x"]
)
def test_a_variable_that_names_no_http_proxy_is_named_but_not_shown(
    engine: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(InvalidArgumentError, match=r"HTTPS_PROXY is not the URL of an HTTP proxy.*NO_PROXY") as error:
        connect(f"{engine}+https://{NAME}/name").open()
    assert "s3cr3t" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------- signatures


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("botocore", reason="pip install 'hybridsearch[aws]'")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "SESSION_TOKEN": TOKEN}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.mark.parametrize(
    ("host", "region", "service"),
    [
        ("search-papers-x1.eu-central-1.es.amazonaws.com", "eu-central-1", "es"),
        ("x1.us-east-1.aoss.amazonaws.com", "us-east-1", "aoss"),
        (NAME, "us-west-2", "es"),  # a name of one's own
    ],
)
def test_each_request_to_aws_has_a_valid_signature(
    opensearch_url: str,
    lucene_names: Callable[[str, str], str],
    host: str,
    region: str,
    service: str,
    credentials: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = lucene_names(opensearch_url, "a%2Bb")  # the sign % is escaped twice in the signature
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    with FaultyProxy(address_of(place), on="") as engine, ForwardProxy({host: ("127.0.0.1", port_of(engine))}) as proxy:
        verifier = Verifier(region, service)
        engine.rule = verifier.check
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        finds(named(place, host, 80), auth="aws")
        assert verifier.valid > 5
        assert verifier.wrong == []
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET.lower())
        with pytest.raises(BackendError, match=r"AWS refused.*signature we calculated does not match") as error:
            connect(named(place, host, 80), {"auth": "aws"}).open()
        assert len(verifier.wrong) == 1
    for secret in (SECRET, SECRET.lower(), TOKEN):
        assert secret not in caplog.text
        assert secret not in str(error.value)


def test_the_environment_may_ask_for_signatures(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDSEARCH_OPENSEARCH_AUTH", "aws")
    address = address_of("opensearch+https://x1.us-east-1.aoss.amazonaws.com/name")
    assert (address.auth, address.hosts[0][1], address.headers) == ("aws", 443, {})
    assert address_of("opensearch://me:secret@localhost/name").auth is None  # a user in the place comes first


def test_what_is_missing_for_signatures_is_one_sentence(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"opensearch+https://{NAME}/name"
    with pytest.raises(BackendError, match=r"AWS region.*AWS_REGION"):
        connect(place, {"auth": "aws"}).open()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(BackendError, match=r"could not read the AWS credentials.*nobody"):
        connect(place, {"auth": "aws"}).open()
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(BackendError, match=r"found no AWS credentials.*AWS_ACCESS_KEY_ID"):
        connect(place, {"auth": "aws"}).open()


@pytest.mark.parametrize(
    ("place", "options", "sentence"),
    [
        ("elasticsearch+https://host/name", {"auth": "aws"}, r"is for OpenSearch.*write opensearch\+https"),
        ("opensearch+https://host/name", {"auth": "gcp"}, "auth is 'gcp', but it must be 'aws'"),
        ("opensearch+https://host/name", {"auth": "aws", "user": "me", "password": "secret"}, "Give either auth"),
        ("opensearch+https://me:secret@host/name", {"auth": "aws"}, "Give either auth"),
    ],
)
def test_signatures_that_are_not_possible_are_refused(place: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidArgumentError, match=sentence) as error:
        connect(place, options)
    assert "secret" not in str(error.value)


class Verifier:
    """Verifies signatures as AWS does, by the published algorithm, and passes requests on to the server.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(self, region: str, service: str) -> None:
        self.region, self.service = region, service
        self.valid = 0
        self.wrong: list[str] = []

    def check(self, exchange: Exchange) -> None:
        headers = {name.lower(): value.strip() for name, value in exchange.headers.items()}
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(",")) if rest else {}
        signed = parts.get("SignedHeaders", "").split(";")
        time = headers.get("x-amz-date", "")
        scope = f"{time[:8]}/{self.region}/{self.service}/aws4_request"
        target = urlsplit(exchange.path)
        query = sorted(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in parse_qsl(target.query, keep_blank_values=True)
        )
        canonical = "\n".join(
            [
                exchange.command,
                quote(target.path, safe="/-_.~"),
                "&".join(query),
                *(f"{name}:{' '.join(headers[name].split())}" for name in signed),
                "",
                ";".join(signed),
                hashlib.sha256(exchange.body).hexdigest(),
            ]
        )
        to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{SECRET}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        expected = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        required = {"host", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}
        problems = [
            scheme != "AWS4-HMAC-SHA256",
            parts.get("Credential") != f"{KEY}/{scope}",
            not required <= set(signed),
            headers.get("x-amz-security-token") != TOKEN,
            headers.get("x-amz-content-sha256") != hashlib.sha256(exchange.body).hexdigest(),
            not hmac.compare_digest(parts.get("Signature", ""), expected),
        ]
        if any(problems):
            self.wrong.append(f"{exchange.command} {exchange.path}: {problems}")
            message = (
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                f"Access Key and signing method.\\n\\nThe Canonical String should have been\\n{TOKEN}"
            )
            exchange.reply(403, f'{{"message": "{message}"}}'.encode())
            return
        self.valid += 1
        passing(exchange)


def port_of(proxy: FaultyProxy) -> int:
    return int(proxy.url.rpartition(":")[2])


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate that is its own authority, and the settings of a server that has it."""
    authority, key = folder / "node.pem", folder / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={NAME} -addext subjectAltName=DNS:{NAME}"
    subprocess.run([*command.split(), "-keyout", key, "-out", authority], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, key)
    return authority, context
