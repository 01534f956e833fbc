"""Tests that no message shows a password or a key, wherever it was given."""

from __future__ import annotations

import copy
import inspect

import pytest

import hybridsearch as hs
from hybridsearch import errors
from hybridsearch.errors import BulkIndexError, HybridSearchError, MissingExtraError
from hybridsearch.messages import redacted, redacted_command
from hybridsearch.training.data.read import read_training_data

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, HybridSearchError) and kind not in (BulkIndexError, MissingExtraError)
]


@pytest.mark.parametrize(
    "userinfo",
    ["me:hunter2", ":hunter2", "hunter2", "me:hunt/hunter2", "me:p@hunter2", "me:my hunter2", "me:5/hunter2"],
)
@pytest.mark.parametrize(
    "text", ["{url}", "The place '{url}' is none.", "{url} is not there: see https://host/@me.", '{{"at": "{url}"}}']
)
@pytest.mark.parametrize("scheme", ["opensearch", "qdrant+https", "http", "HTTPS", "postgresql"])
def test_what_a_url_has_before_the_at_sign_is_hidden(userinfo: str, text: str, scheme: str) -> None:
    shown = redacted(text.format(url=f"{scheme}://{userinfo}@host:9200/papers"))
    assert "hunter2" not in shown
    assert f"{scheme}://***@host:9200/papers" in shown


@pytest.mark.parametrize(
    "text",
    [
        "opensearch://host:9200/papers",
        "opensearch at http://host:9200 says: user@realm is not allowed",
        "There is no document 'https://medium.com/@user/post'.",
        "qdrant:///home/me@work/papers",
        "qdrant://:memory:/papers",
        "http://[::1]:9200/papers",
        "give user and password, or api_key=..., as arguments",
        "the key of tokens, password:",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://host/x?api_key=hunter2&size=3", "http://host/x?api_key=***&size=3"),
        ("no option password=hunter2, none", "no option password=***, none"),
        ("no place 'opensearch//me:hunter2@host/x'", "no place 'opensearch//***@host/x'"),
        ("given {'password': 'hunt er2', 'user': 'me'}", "given {'password': '***', 'user': 'me'}"),
        ('given {"API_KEY": "hunter2"}', 'given {"API_KEY": "***"}'),
    ],
)
def test_options_that_hold_secrets_are_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_a_command_is_shown_without_what_its_options_hold() -> None:
    words = [
        "hybridsearch",
        "copy",
        "--option",
        "password=my hunter2",
        "--source-option=api_key=hunter2",
        "qdrant://k@h/x",
    ]
    assert "hunter2" not in redacted_command(words)
    assert redacted_command(words).endswith("'password=***' '--source-option=api_key=***' 'qdrant://***@h/x'")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_hides_them(kind: type[HybridSearchError]) -> None:
    error = kind("At 'opensearch://me:hunter2@host/papers' there is none.")
    assert str(error) == "At 'opensearch://***@host/papers' there is none."
    assert "hunter2" not in repr(error) + repr(error.args)
    assert str(copy.copy(error)) == str(error)


def test_the_errors_with_arguments_of_their_own_hide_them_too_and_can_be_copied() -> None:
    url = "http://me:hunter2@host/x"
    refused, missing = BulkIndexError([("a", f"refused by {url}")]), MissingExtraError("x", "y", f"Reading {url}")
    for error in (refused, missing):
        assert "hunter2" not in str(error)
        assert str(copy.copy(error)) == str(error)
    assert copy.copy(refused).failed == refused.failed


@pytest.mark.parametrize(
    "call",
    [
        lambda url: hs.open(url.replace("opensearch", "seismic")),
        lambda url: hs.open(url.replace("opensearch", "magic")),
        hs.read_documents,
        hs.load_dataset,
        lambda url: hs.Dense(url).encode_queries(["wing"]),
        lambda url: hs.CrossEncoderReranker(url).rerank(["a"], [[hs.Document("b", "c")]]),
        lambda url: hs.HybridSearch({"bm25": hs.BM25()}, fusion=url),
        lambda url: hs.HybridSearch({"bm25": hs.BM25()}, reranker=url),
        lambda url: hs.HybridSearch({"bm25": url}),
        lambda url: hs.HybridSearch({"bm25": hs.BM25()}).index([hs.Document("a", "b")], via=url),
        lambda url: hs.copy("/nowhere", url),
        lambda url: hs.copy(url, url),
        hs.BM25,
        read_training_data,
    ],
)
def test_a_place_that_is_given_where_another_thing_is_meant_comes_back_without_its_password(call: object) -> None:
    with pytest.raises(HybridSearchError) as caught:
        call("opensearch://me:hunter2@host.invalid/papers")  # type: ignore[operator]
    assert "hunter2" not in str(caught.value)
