"""The settings of the service: from options of the command, from the environment, and from a YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from hybridsearch.arguments import ALLOWED_FIRST, number, shown, true_or_false, whole_number
from hybridsearch.errors import InvalidArgumentError, MissingExtraError
from hybridsearch.messages import not_known
from hybridsearch.yaml_files import loader, problem_of

VARIABLE = "HYBRIDSEARCH_SERVE_"
"""Beginning of the environment variables of settings. The rest is the setting's name in capitals."""


def setting(default: Any, help: str, *, panel: str = "Limits", metavar: str = "N", least: float | None = None) -> Any:
    """A field of `Settings`.

    Args:
        default: Default of the setting. A tuple is a list of texts.
        help: Text for `hybridsearch serve --help`. It begins with what the value is.
        panel: Heading under which the help text lists the option.
        metavar: Placeholder of the value in the help text.
        least: Smallest allowed number. None for a value that is no number.
    """
    return field(default=default, metadata={"help": help, "panel": panel, "metavar": metavar, "least": least})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the service. Each is an option of `hybridsearch serve`, whose help text describes it.

    >>> Settings(max_top_k=50).max_top_k
    50
    >>> Settings(max_top_k=0)
    Traceback (most recent call last):
    hybridsearch.errors.InvalidArgumentError: max_top_k is 0, but it must be a whole number of at least 1.
    """

    host: str = setting(
        "127.0.0.1",
        "Address to listen on. Another address than 127.0.0.1 needs tokens in HYBRIDSEARCH_TOKENS, such as "
        "read:TOKEN,write:TOKEN.",
        panel="Run",
        metavar="ADDRESS",
    )
    port: int = setting(8000, "Port to listen on.", panel="Run", least=1)
    allow_write: bool = setting(
        False,
        "Let clients store and delete documents, and choose the fusion of all searches, if there are no tokens.",
        panel="Run",
        metavar="",
    )
    cors: tuple[str, ...] = setting(
        (),
        "Origin of web pages that may use the service, such as https://example.org. Can be repeated. Default: only "
        "the service's pages.",
        panel="Run",
        metavar="ORIGIN",
    )
    allow_host: tuple[str, ...] = setting(
        (),
        "Host name that requests may have, besides localhost, for example the name of a proxy. Can be repeated.",
        panel="Run",
        metavar="NAME",
    )
    workers: int = setting(
        1,
        "Number of processes that serve the indexes. Each loads its own models. They write to a folder in turns.",
        panel="Run",
        least=1,
    )
    reload_index: bool = setting(
        False,
        "If an index is replaced by another index, load the new index beside the old one, and let the old one answer "
        "until then. No request fails.",
        panel="Run",
        metavar="",
    )
    precision: str = setting(
        "",
        "Number format in which models compute: auto, fp32, bf16 or int8. Default: the precision of the index.",
        panel="Run",
        metavar="NAME",
    )
    runtime: str = setting(
        "",
        "Library that runs models: torch or openvino. Default: the library of the index.",
        panel="Run",
        metavar="NAME",
    )
    log_queries: bool = setting(
        False, "Write the texts of queries, with the ids of their hits, into the log.", panel="Run", metavar=""
    )
    batch_wait: float = setting(
        2.0, "Longest time in milliseconds that a batch of searches waits for more searches.", panel="Run", least=0
    )
    batch_queries: int = setting(
        64, "Largest number of queries that are searched together. 1 turns batching off.", panel="Run", least=1
    )
    judgements: str = setting(
        "",
        "Folder that keeps the judgements, and the fusions that people choose. With it, people can judge on the "
        "page. If there are tokens, a judge needs a token that may write. Without tokens, "
        "--allow-write lets people choose a fusion.",
        panel="Run",
        metavar="FOLDER",
    )
    queries: tuple[str, ...] = setting(
        (),
        "File of queries, or folder with a file queries.jsonl. The page offers these queries. Can be repeated.",
        panel="Run",
        metavar="PATH",
    )
    judge: str = setting(
        "",
        "Cross-encoder that can judge before people do, with --judgements: folder of the model, or its name on the "
        "Hugging Face hub. late=MODEL for a late-interaction model. Default: the reranker of the index.",
        panel="Run",
        metavar="MODEL",
    )
    max_body: int = setting(
        10_000_000, "Largest number of bytes of a body with documents, and of a line of NDJSON.", least=1
    )
    max_search_body: int = setting(
        1_000_000, "Largest number of bytes of the body of a search, and of other requests that store nothing.", least=1
    )
    max_queries: int = setting(100, "Largest number of queries in one request.", least=1)
    max_query: int = setting(2_000, "Largest number of characters of a query.", least=1)
    max_top_k: int = setting(
        1_000, "Largest number of hits for each query, and of documents in one part of a list.", least=1
    )
    max_hits: int = setting(10_000, "Largest number of hits of all queries of one request.", least=1)
    max_candidates: int = setting(10_000, "Largest number of documents that are read from each retriever.", least=1)
    max_filter_depth: int = setting(20, "Largest number of levels of objects and lists in a filter.", least=1)
    max_filter_values: int = setting(10_000, "Largest number of values in a filter.", least=1)
    max_seconds: float = setting(
        30.0, "Longest time in seconds of a request, and between two parts of streamed documents.", least=0.1
    )
    max_requests: int = setting(
        128, "Largest number of requests at the same time, in each worker. Others get the status 429.", least=1
    )

    def __post_init__(self) -> None:
        for name in kinds():
            object.__setattr__(self, name, _checked(name, getattr(self, name), name))


@cache
def kinds() -> Mapping[str, Any]:
    """The type of each setting, by name."""
    return get_type_hints(Settings)


def read_settings(
    options: Mapping[str, Any], environment: Mapping[str, str], file: str | Path | None = None
) -> tuple[Settings, dict[str, str]]:
    """Read the settings of a service. An option counts before the environment, and the environment before the file.

    Args:
        options: Settings that the command's options give. Those that are None or empty are not given.
        environment: Variables of the environment.
        file: YAML file with settings, and with places of indexes by name under `indexes`. None for no file.

    Returns:
        The settings, and the places of the file by the names of their indexes.

    Raises:
        InvalidArgumentError: A setting is not known or not allowed, or the file cannot be read.
    """
    from_file = {} if file is None else _read_file(Path(file))
    places = _checked_places(from_file.pop("indexes", {}), file)
    if unknown := [name for name in from_file if name not in kinds()]:
        rest = not_known(unknown[0], ["indexes", *kinds()], "settings")
        raise InvalidArgumentError(f"The setting {unknown[0]!r:.80} of the file {str(file)!r:.200} {rest}")
    from_environment = {
        name.removeprefix(VARIABLE).lower(): text for name, text in environment.items() if name.startswith(VARIABLE)
    }
    if unknown := [name for name in from_environment if name not in kinds()]:
        variable, *known = (VARIABLE + name.upper() for name in (unknown[0], *kinds()))
        raise InvalidArgumentError(f"The variable {variable:.80} {not_known(variable, known, 'variables')}")
    of_file = {
        name: _checked(name, value, f"{name!r} of the file {str(file)!r:.200}") for name, value in from_file.items()
    }
    of_environment = {
        name: _checked(name, _parsed(kinds()[name], text), VARIABLE + name.upper())
        for name, text in from_environment.items()
    }
    given = {name: value for name, value in options.items() if value not in (None, (), [])}
    return Settings(**of_file | of_environment | given), places


def _checked(name: str, value: Any, called: str) -> Any:
    """The value of a setting. Errors name it as `called`."""
    kind, (one,) = kinds()[name], (one for one in fields(Settings) if one.name == name)
    metadata, default = one.metadata, one.default
    if kind is str and value == default:
        return value
    if kind is bool:
        return true_or_false(called, value)
    if kind is int:
        return whole_number(called, value, metadata["least"])
    if kind is float:
        return float(number(called, value, least=metadata["least"]))
    listed = [value] if kind is str or isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) and one for one in listed):
        allowed = "a text" if kind is str else "a list of texts"
        raise InvalidArgumentError(ALLOWED_FIRST.format(name=called, allowed=allowed, value=shown(value)))
    return listed[0] if kind is str else tuple(listed)


def _parsed(kind: Any, text: str) -> Any:
    """The value of an environment variable. `_checked` refuses what cannot be parsed."""
    if kind in (bool, int, float):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text if kind is str else [one.strip() for one in text.split(",") if one.strip()]


def _checked_places(given: Any, file: str | Path | None) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(one, str) and one for one in [*given, *given.values()]):
        raise InvalidArgumentError(
            f"indexes of the file {str(file)!r:.200} are places by name, such as {{'papers': '/data/papers'}}, not "
            f"{shown(given)}."
        )
    for name in given:
        if "/" in name or name in (".", "..") or not name.isprintable():
            raise InvalidArgumentError(
                f"indexes of the file {str(file)!r:.200}: {name!r:.80} is no name of an index, because no address can "
                "have it. Use letters, digits, '_' and '-'."
            )
    return given


def _read_file(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("PyYAML", "serve", "A file of settings") from error
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader(yaml))  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        line, problem = problem_of(error)
        said = f"{line}: {problem}" if line else problem
        raise InvalidArgumentError(f"The settings {str(path)!r:.200} cannot be read: {said}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InvalidArgumentError(f"The settings {str(path)!r:.200} cannot be read: {reason}.") from error
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InvalidArgumentError(
            f"The file {str(path)!r:.200} holds settings by name, such as `port: 8000`, not {shown(content)}."
        )
    return content
