"""Tests of the settings of the service: options, then the environment, then the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.service.settings import read_settings


def test_options_count_before_the_environment_and_the_environment_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(
        "port: 1\nmax_top_k: 2\nmax_queries: 3\ncors: https://a.example\nindexes:\n  papers: /data/papers\n"
    )
    environment = {"HYBRIDSEARCH_SERVE_PORT": "10", "HYBRIDSEARCH_SERVE_MAX_TOP_K": "20", "OTHER": "x"}

    settings, places = read_settings({"port": 100, "max_top_k": None, "cors": []}, environment, file)

    assert (settings.port, settings.max_top_k, settings.max_queries) == (100, 20, 3)
    assert settings.cors == ("https://a.example",)
    assert places == {"papers": "/data/papers"}
    listed, _ = read_settings({}, {"HYBRIDSEARCH_SERVE_ALLOW_HOST": "a.example, b.example"})
    assert listed.allow_host == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_topk: 3", " is not known: did you mean 'max_top_k'?"),
        ("port: true", "service.yaml' is True, but it must be a whole number of at least 1."),
        ("allow_write: 1", "service.yaml' is true or false, not 1."),
        ("cors: [1]", "service.yaml' is a list of texts, not"),
        ("- port", "holds settings by name, such as `port: 8000`, not"),
        ("port: 1\nhost: [a\nmax_top_k: 2", "cannot be read: line 3: expected ',' or ']'"),
        ("port: 1\nhost: 127.0.0.1\nport: 2", "cannot be read: line 3: 'port' comes twice."),
        ("indexes: {papers: a, papers: b}", "cannot be read: line 1: 'papers' comes twice."),
        ("indexes: papers", "are places by name"),
        ("indexes: {a/b: papers}", "'a/b' is no name of an index"),
        ("indexes: {..: papers}", "'..' is no name of an index"),
        ("tokens: abc", " is not known. The settings are 'indexes', 'host', "),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(text)
    with pytest.raises(InvalidArgumentError) as error:
        read_settings({}, {}, file)
    assert sentence in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"HYBRIDSEARCH_SERVE_PROT": "1"},
            "is not known: did you mean 'HYBRIDSEARCH_SERVE_PORT'?",
        ),
        (
            {"HYBRIDSEARCH_SERVE_PORT": "many"},
            "HYBRIDSEARCH_SERVE_PORT is 'many', but it must be a whole number of at least 1.",
        ),
        ({"HYBRIDSEARCH_SERVE_ALLOW_WRITE": "yes"}, "HYBRIDSEARCH_SERVE_ALLOW_WRITE is true or false, not 'yes'."),
    ],
)
def test_a_wrong_variable_is_refused(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        read_settings({}, environment)
    assert sentence in str(error.value)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("# nothing yet\n")
    given: Any = read_settings({}, {}, tmp_path / "service.yaml")
    assert given == read_settings({}, {})
