"""Options of a training run, from the command line or a YAML file: their checks, and the run itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch.arguments import ALLOWED_FIRST, number, shown, true_or_false, whole_number
from hybridsearch.arguments import path as checked_path
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.libraries import import_library
from hybridsearch.training.settings import ModelKind, TrainingSettings
from hybridsearch.yaml_files import loader, problem_of

if TYPE_CHECKING:
    from hybridsearch.evaluation.datasets import Dataset
    from hybridsearch.search import HybridSearch
    from hybridsearch.training.data import TrainingData
    from hybridsearch.training.runs.run import TrainingResult
    from hybridsearch.training.sources import Part

_ONLY: dict[str, tuple[ModelKind, ...]] = {
    "matryoshka_dims": ("dense",),
    "lora": ("dense", "late-interaction"),
    "guide": ("dense",),
    "pooling": ("dense",),
    "query_prompt": ("dense", "late-interaction"),
    "document_prompt": ("dense", "late-interaction"),
    "architecture": ("sparse",),
    "document_regularizer_weight": ("sparse",),
    "query_regularizer_weight": ("sparse",),
    "target_active_dims": ("sparse",),
    "target_query_active_dims": ("sparse",),
    "regularizer_schedule": ("sparse",),
    "regularizer_warmup": ("sparse",),
    "query_learning_rate": ("sparse",),
    "dimensions": ("late-interaction",),
    "retriever": ("late-interaction", "reranker"),
}
"""The kinds of models that take an option, for each option that not all kinds take."""

_TRANSLATED = ("matryoshka_dims", "lora", "query_prompt", "document_prompt", "retriever")
"""Options of `_ONLY` that no training function takes under this name."""

_OF_A_SOURCE = ("columns", "ignore", "kind", "sql", "split", "subset", "score_range", "limit", "loss", "name")
_OF_EACH_SOURCE = ("columns", "ignore", "rows", "sql", "split", "subset", "limit")
_OF_PSEUDO = ("queries", "generator", "per_document", "limit")
_TEXTS = (
    "model", "output", "sql", "split", "subset", "test", "corpus", "unsupervised", "generator", "teacher", "loss",
    "guide", "rows", "pooling", "query_prompt", "document_prompt", "architecture", "regularizer_schedule", "retriever",
    "name",
)  # fmt: skip
_WHOLE_NUMBERS = (
    "limit", "hard_negatives", "per_document", "target_active_dims", "target_query_active_dims", "dimensions",
)  # fmt: skip
_NUMBERS = ("document_regularizer_weight", "query_regularizer_weight", "regularizer_warmup", "query_learning_rate")
"""Options whose types are checked here. `TrainingSettings` checks all other options."""

_NO_YAML = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""Errors that PyYAML raises besides its own ones, such as for a date of month 99 or a thousand brackets."""

_SPEC = re.compile(r"([a-z-]+)=(.+)", re.DOTALL)


def read_config(path: Path, kind: ModelKind, known: Sequence[str]) -> dict[str, Any]:
    """The options of a YAML file. Hyphens and underscores in their names are the same.

    Raises:
        InvalidArgumentError: The file cannot be read or is for another kind of model. Or it has an option that is not
            `known`, or a value that is not allowed.
        MissingExtraError: PyYAML is not installed.
    """
    yaml = import_library("yaml", "--config", "PyYAML")
    try:
        read = yaml.load(path.read_text(encoding="utf-8"), loader(yaml))
    except OSError as error:
        raise InvalidArgumentError(f"--config {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"--config {path} is not valid UTF-8: save it as UTF-8.") from error
    except yaml.YAMLError as error:
        line, problem = problem_of(error)
        raise InvalidArgumentError(f"--config {path}{line and f', {line}'} is not valid YAML: {problem}.") from error
    except _NO_YAML as error:
        raise InvalidArgumentError(f"--config {path} is not valid YAML: {str(error) or 'no value'}.") from error
    if not isinstance(read, dict):
        raise InvalidArgumentError(f"--config {path} has no options: write lines such as `epochs: 3`.")
    options: dict[str, Any] = {}
    for name, value in read.items():
        option = str(name).removeprefix("--").replace("-", "_")
        if option in options:
            raise InvalidArgumentError(
                f"--config {path} has the option {option.replace('_', '-')!r} twice: give it once."
            )
        options[option] = value
    if options.pop("kind", kind) != kind:
        raise InvalidArgumentError(
            f"--config {path} is for `hybridsearch train {read['kind']}`, not for a {kind} model."
        )
    if strange := [name for name in options if name not in known]:
        listed = ", ".join(name.replace("_", "-") for name in known)
        raise InvalidArgumentError(f"--config {path} has the unknown option {strange[0]!r}. The options are {listed}.")
    options = {name: _as_written(value) for name, value in options.items() if value is not None}
    try:
        _check_values(options)
        _settings(options)
        _of_kind(options)
        _parts(options)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"In --config {path}: {error}") from error
    return options


def _check_values(options: Mapping[str, Any]) -> None:
    """Raises InvalidArgumentError if a value has the wrong type or is not a path. YAML allows any type."""
    for name, value in options.items():
        if name in _TEXTS and not (isinstance(value, str | Path) and str(value).strip() and "\0" not in str(value)):
            raise InvalidArgumentError(f"{name} is a text, not {shown(value)}.")
        if name in _WHOLE_NUMBERS:
            whole_number(name, value, sentence=ALLOWED_FIRST)
        if name in _NUMBERS:
            number(name, value, least=0, sentence=ALLOWED_FIRST)
        if name in ("dev", "evaluator"):
            for one in value if isinstance(value, list) else [value]:
                if not isinstance(one, str | dict):
                    raise InvalidArgumentError(f"{name} is a text such as 'similarity=dev.csv', not {shown(one)}.")
                if isinstance(one, str):
                    checked_path(name, one)
        if name in ("test", "corpus", "unsupervised"):
            checked_path(name, value)


def check_options(kind: ModelKind, options: Mapping[str, Any]) -> None:
    """Raises InvalidArgumentError if options are missing or contradict each other. Loads no data and no model."""
    for name in ("model", "output"):
        if name not in options:
            raise InvalidArgumentError(
                f"--{name} is missing: `hybridsearch train {kind} --data ... --model ... --output ...`."
            )
    if ("data" in options) == ("unsupervised" in options):
        raise InvalidArgumentError("Give either --data SOURCE or --unsupervised SOURCE.")
    true_or_false("trust_remote_code", options.get("trust_remote_code", False))
    for name, kinds in _ONLY.items():
        if name in options and kind not in kinds:
            raise InvalidArgumentError(
                f"{_flag(name, options)} is for {' and '.join(kinds)} models, and this is a {kind} model."
            )
    for name in _OF_PSEUDO:
        if name in options and "unsupervised" not in options and name not in _OF_EACH_SOURCE:
            raise InvalidArgumentError(f"{_flag(name, options)} needs --unsupervised SOURCE.")
    if options.get("teacher") == "hybrid" and "unsupervised" not in options:
        raise InvalidArgumentError("--teacher hybrid needs --unsupervised SOURCE. With --data give a model.")
    for name in (*_OF_EACH_SOURCE, "corpus"):
        if name in options and "unsupervised" in options and name not in _OF_PSEUDO:
            raise InvalidArgumentError(f"{_flag(name, options)} needs --data SOURCE: leave it out with --unsupervised.")
    _check_values(options)


def run_options(
    kind: ModelKind, options: Mapping[str, Any], *, show_progress_bar: bool | None = None
) -> TrainingResult:
    """Train a model by the options of `hybridsearch train`, which `check_options` has checked.

    Args:
        kind: Kind of the model.
        options: Values by option name, with underscores.
        show_progress_bar: Whether to show progress bars. None shows them in a terminal.
    """
    from hybridsearch.evaluation.datasets import load_one
    from hybridsearch.training.runs.record import check_output

    settings = _settings(options)
    model, output = str(options["model"]), checked_path("--output", str(options["output"])).resolve()
    check_output(output, settings)  # before hours of mining
    arguments: dict[str, Any] = {"settings": settings, "show_progress_bar": show_progress_bar, **_of_kind(options)}
    of_any = ("loss", "hard_negatives", "teacher", "corpus", "trust_remote_code")
    arguments |= {name: options[name] for name in of_any if name in options}
    if "dev" in options:
        arguments["dev"] = _dev(options["dev"], options)
    if "test" in options:
        arguments["test"] = load_one(options["test"], "test")
    data = _made(kind, model, output, options, arguments) if "unsupervised" in options else _parts(options)
    if "evaluator" in options:
        asked = options["evaluator"]
        arguments["evaluators"] = [
            _with_columns(one, options) for one in (asked if isinstance(asked, list) else [asked])
        ]
    name = kind.replace("-", "_")
    train = getattr(import_module(f"hybridsearch.training.{name}"), f"train_{name}")
    with _reordered(options.get("retriever"), arguments.get("test")) as retriever:
        if retriever is not None:
            arguments["retriever"] = retriever
        result: TrainingResult = train(model, data, output, **arguments)
    return result


def _settings(options: Mapping[str, Any]) -> TrainingSettings:
    return TrainingSettings.from_dict(
        {
            one.name: _names(one.name, options[one.name]) if one.name == "trackers" else options[one.name]
            for one in fields(TrainingSettings)
            if one.name in options
        }
    )


def _flag(name: str, options: Mapping[str, Any]) -> str:
    return f"--{name.replace('_', '-')} {options[name]}"


def _as_written(value: Any) -> Any:
    """`value` as a number if it looks like 3e-5. YAML reads it as a text, because it has no dot."""
    number = isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value)
    return float(value) if number else value


def _made(
    kind: ModelKind, model: str, output: Path, options: Mapping[str, Any], arguments: dict[str, Any]
) -> TrainingData:
    """Training data made from documents without judgements. Adds the data that were held out to `arguments`."""
    from hybridsearch.training.unlabelled.unsupervised import unsupervised_data

    made = unsupervised_data(
        options["unsupervised"],
        model,
        kind,
        teacher=arguments.pop("teacher", None),
        hard_negatives=arguments.pop("hard_negatives", None),
        output=output / "negatives",
        trust_remote_code=arguments.get("trust_remote_code", False),
        seed=arguments["settings"].seed,
        show_progress_bar=arguments["show_progress_bar"],
        texts=arguments.get("loss") == "tsdae",
        kinds=_names("queries", options["queries"]) if "queries" in options else None,  # type: ignore[arg-type]
        **{name: options[name] for name in _OF_PSEUDO if name in options and name != "queries"},
    )
    arguments.setdefault("dev", made.dev)
    arguments.setdefault("test", made.test)
    arguments["corpus"] = options["unsupervised"]
    return made.data


def _dev(asked: Any, options: Mapping[str, Any]) -> Any:
    """What `--dev` names: a data set, the rows of a file, or evaluators such as similarity=dev.csv."""
    from hybridsearch.evaluation.datasets import load_one
    from hybridsearch.training.data import read_training_data

    specs = asked if isinstance(asked, list) else [asked]
    if len(specs) == 1 and isinstance(specs[0], str) and not re.match(r"[a-z-]+=|(nanobeir|sts)$", specs[0]):
        if not Path(specs[0]).is_file():
            return load_one(specs[0], "dev")
        kind = {"kind": options["rows"]} if "rows" in options else {}
        part = read_source({"source": specs[0], **_columns_of(specs[0], options), **kind})
        return read_training_data(part.source, **part.arguments)
    return [_with_columns(one, options) for one in specs]


def _with_columns(spec: Any, options: Mapping[str, Any]) -> Any:
    """TYPE=FILE with those options of --columns and --ignore whose columns the file has."""
    found = _SPEC.fullmatch(spec) if isinstance(spec, str) else None
    if found is None or not Path(found[2]).is_file():
        return spec
    given = _columns_of(found[2], options)
    return {"type": found[1], "data": found[2], **given} if given else spec


def _columns_of(file: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The part of --columns and --ignore that fits a file of dev data. Other columns get roles by their names."""
    from hybridsearch.training.data.columns import role_of
    from hybridsearch.training.data.tables import open_table

    if "columns" not in options and "ignore" not in options:
        return {}
    there = open_table(file, split="dev", subset=None, sql=None).columns
    given = _parse_columns(options.get("columns", {}))
    columns = {role: column for role, column in given.items() if column in there}
    ignored = [column for column in _names("ignore", options.get("ignore", [])) if column in there]
    if columns:
        for column in there:
            role = role_of(column)
            if role is not None and role not in columns and column not in (*columns.values(), *ignored):
                columns[role] = column
        return {"columns": columns}
    return {"ignore": ignored} if ignored else {}


def _of_kind(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that not all kinds of models take."""
    arguments = {name: options[name] for name in _ONLY if name in options and name not in _TRANSLATED}
    if "matryoshka_dims" in options:
        arguments["matryoshka_dims"] = _whole_numbers(options["matryoshka_dims"])
    prompts = {role: options[f"{role}_prompt"] for role in ("query", "document") if f"{role}_prompt" in options}
    if prompts:
        arguments["prompts"] = prompts
    if "lora" in options:
        from hybridsearch.training.models.lora import LoraSettings

        lora = options["lora"]
        arguments["lora"] = LoraSettings.from_dict(lora if isinstance(lora, dict) else {"rank": lora})
    return arguments


# Data


def _parts(options: Mapping[str, Any]) -> list[Part]:
    data = options.get("data", [])
    named = data if isinstance(data, list) else [data]
    of_each = {"kind" if name == "rows" else name: options[name] for name in _OF_EACH_SOURCE if name in options}
    return [read_source(of_each | (one if isinstance(one, dict) else {"source": one})) for one in named]


def read_source(asked: Mapping[str, Any]) -> Part:
    """A source, and the arguments with which `read_training_data` reads it.

    Columns can also be a text, such as "anchor=question,positive=answer".
    """
    from hybridsearch.training.sources import Part

    arguments = {name: value for name, value in asked.items() if value is not None}
    source = arguments.pop("source", None)
    if not isinstance(source, str) or "\0" in source:
        raise InvalidArgumentError("An entry of data is a text, or a mapping with a source: `- source: pairs.csv`.")
    checked_path("data", source)
    if strange := [name for name in arguments if name not in _OF_A_SOURCE]:
        raise InvalidArgumentError(f"An entry of data has no {strange[0]!r}. It has source, {', '.join(_OF_A_SOURCE)}.")
    _check_values(arguments)
    if "kind" in arguments and not isinstance(arguments["kind"], str):
        raise InvalidArgumentError(
            f"The kind of data is a text such as 'pairs with class', not {shown(arguments['kind'])}."
        )
    if "score_range" in arguments:
        ends = arguments["score_range"]
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            raise InvalidArgumentError(f"score_range is [lowest, highest], not {shown(ends)}.")
        arguments["score_range"] = tuple(number("score_range", end) for end in ends)
    if "columns" in arguments:
        arguments["columns"] = _parse_columns(arguments["columns"])
    if "ignore" in arguments:
        arguments["ignore"] = _names("ignore", arguments["ignore"])
    return Part(source, arguments)


def _parse_columns(text: Any) -> dict[str, str]:
    """The column of each role."""
    if isinstance(text, dict) and all(isinstance(one, str) for pair in text.items() for one in pair):
        return dict(text)
    pairs = [part.partition("=") for part in text.split(",")] if isinstance(text, str) else [("", "", "")]
    if any(not role.strip() or not column.strip() for role, _, column in pairs):
        raise InvalidArgumentError(
            f"--columns takes ROLE=COLUMN, such as anchor=question,positive=answer, not {text!r}."
        )
    columns: dict[str, str] = {}
    for role, column in ((role.strip(), column.strip()) for role, _, column in pairs):
        if columns.setdefault(role, column) != column:
            raise InvalidArgumentError(
                f"--columns gives the role {role!r:.80} two columns, {columns[role]} and {column}: leave one out."
            )
    return columns


@contextmanager
def _reordered(spec: str | None, test: Dataset | None) -> Iterator[HybridSearch | None]:
    """An index of the documents of --test, whose results are reranked. None without --retriever."""
    if spec is None:
        yield None
        return
    import hybridsearch as hs
    from hybridsearch.encoders.spec import make_encoders

    if test is None or test.corpus is None:
        raise InvalidArgumentError("--retriever searches the documents of --test DATASET: give --test too.")
    with hs.HybridSearch(make_encoders(spec, None)) as search:
        search.index(test.corpus)
        yield search


def _listed(value: Any) -> list[Any]:
    """The values of a YAML list, or of a text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _names(name: str, value: Any) -> list[str]:
    listed = _listed(value)
    if not all(isinstance(one, str) for one in listed):
        raise InvalidArgumentError(f"{name} takes names with commas, not {shown(value)}.")
    return listed


def _whole_numbers(value: Any) -> list[int]:
    listed = [int(one) if isinstance(one, str) and one.isdecimal() else one for one in _listed(value)]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in listed):
        raise InvalidArgumentError(f"matryoshka_dims={shown(value)} is not a list of sizes: write it like 384,256,128.")
    return listed
