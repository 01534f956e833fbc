"""The program `hybridsearch`: how verbs are listed, how errors are shown, and which exit code follows.

Every verb prints text for people. With `--json` it prints exactly one JSON document. `list` and `get` print a line of
JSON for each document of the index. The exit codes are:

- 0: the verb did its work.
- 1: there was an error. One line on standard error says which. Tables may follow that line.
- 2: the command line itself is wrong. One line on standard error says where, and which help text to read.
- 130: the user pressed Ctrl-C.

Each verb imports the libraries that it needs, so `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from hybridsearch import __version__
from hybridsearch.cli.arguments import OUTPUT
from hybridsearch.cli.terminal import print_error
from hybridsearch.errors import HybridSearchError
from hybridsearch.messages import redacted, visible

SEARCHING = "Search your documents"
KEEPING = "List and delete documents"
MEASURING = "Measure and improve the search"
TRAINING = "Adapt a model to your data"
SERVING = "Serve programs, people and agents"
MOVING = "Move to another engine"
CHECKING = "Check and prepare this machine"

ORDER = (
    "index", "search", "explain", "list", "get", "delete", "compare", "tune", "calibrate", "evaluate", "recall",
    "train", "mine", "serve", "mcp", "copy", "publish", "optimize", "doctor", "warmup",
)  # fmt: skip
"""The verbs in the order in which `hybridsearch --help` lists them: the order in which a new user needs them."""


class Verb(TyperCommand):
    """A verb whose help lists `--help` under the heading "Output"."""

    def get_help_option(self, ctx: Any) -> Any:
        option: Any = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel, option.metavar = OUTPUT, ""
        return option


class _Verbs(TyperGroup):
    """All verbs, in the order of `ORDER`. It shows every error as one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def get_help_option(self, ctx: Any) -> Any:
        option: Any = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option

    def make_context(self, info_name: str | None, *args: Any, **extra: Any) -> Any:
        try:
            return super().make_context(info_name, *args, **extra)
        except Exception as error:
            _exit_if_wrong(error, str(info_name))
            raise

    def invoke(self, ctx: Any) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()  # a broken pipe shows here, not while the interpreter ends
        except HybridSearchError as error:
            tables = getattr(error, "__notes__", ())
            _fail(_with_options(str(error), self.commands[ctx.invoked_subcommand]), debug, tables)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except KeyboardInterrupt as interrupt:
            if interrupt.args:
                print_error(f"interrupted: {interrupt}")
            raise typer.Exit(130) from None
        except OSError as error:
            _fail(f"{error}.", debug)
        except MemoryError:
            _fail("There is not enough memory for this: try a smaller --batch-size.", debug)
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):
                _exit_if_wrong(error, " ".join(filter(None, (ctx.command_path, ctx.invoked_subcommand))))
                raise  # an exit, which the framework handles
            _fail(
                f"Unexpected {type(error).__name__}: {error} "
                "(run `hybridsearch --debug ...`, or set HYBRIDSEARCH_DEBUG=1, to see where).",
                debug,
            )
        return result


_EXPECTED = re.compile(r"\bInput (should be [^,]+).*")


def _exit_if_wrong(error: Exception, command: str) -> None:
    """If `error` is about the command line, print it as one line with the help text to read, and exit.

    The framework would print a box of several lines. It has no words of its own for a value that it refuses: they are
    of pydantic, such as "Input should be a valid integer, unable to parse string as an integer".
    """
    if type(error).__name__ == "NoArgsIsHelpError" or not hasattr(error, "format_message"):
        return
    said = " ".join(str(error.format_message()).replace(": Value error, ", ": ").split())
    if refused := getattr(error.__cause__, "errors", None):
        said = _EXPECTED.sub(lambda found: f"it {found[1]}, not {redacted(refused()[0]['input'])!r:.40}", said)
    end = "" if said.endswith((".", "?")) else "."
    print_error(redacted(f"{said}{end}{_dash_hint(error)} See `{command} --help`."))
    raise typer.Exit(getattr(error, "exit_code", 2)) from None


def _dash_hint(error: Exception) -> str:
    """What to do if a word of a query, or an id, was read as an option. Empty for every other error."""
    verb = getattr(getattr(error, "ctx", None), "command", None)
    names = {param.name for param in getattr(verb, "params", ())}
    if not names & {"words", "ids"} or type(error).__name__ != "NoSuchOption" or getattr(error, "possibilities", None):
        return ""
    kind, what = ("a word of the query", "the query") if "words" in names else ("an id", "the ids")
    return f" If it is {kind}, put all options first and -- before {what}."


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Search your documents with BM25, sparse and dense retrieval, and see why each document was found.

\bFirst steps, in this order (FOLDER holds texts, PDF or office files):
  hybridsearch index FOLDER --index my-index    make an index
  hybridsearch search my-index                  ask questions
  hybridsearch compare --help                   measure which search is best
  hybridsearch tune --help                      choose how to merge rankings
  hybridsearch train dense --help               adapt a model to your data
  hybridsearch copy --help                      move the index to a server

Each verb has a help text with examples: `hybridsearch index --help`.
If something does not work, run `hybridsearch doctor`.""",
)


def main() -> None:
    """The program `hybridsearch`."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.showwarning = _show_warning
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a query that is not UTF-8 is refused, as on the command line
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="hybridsearch")
    except KeyboardInterrupt:
        sys.exit(130)


@app.callback()
def _program(
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="HYBRIDSEARCH_DEBUG", metavar="", help="Show the traceback of an error."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            help="Print the version.",
            callback=lambda on: _print_version(on),  # noqa: PLW0108 - is defined below
            is_eager=True,
        ),
    ] = False,
) -> None:
    pass


_VALUE = r"""=(?P<value>'[^']*'|\[[^\]]*\]|\{[^}]*\}|[^\s(),;]+)"""
_BOTH_WAYS = re.compile(rf"\b(?P<name>\w+)(?:{_VALUE}| of [\w.]+)? \((?P<option>--[\w-]+)(?P<own>[^()]*)\)")


def _with_options(message: str, verb: Any) -> str:
    """`message` with the options of this verb instead of Python's arguments: `top_k=5` becomes `--top-k 5`.

    A message may name both, as in `auto_id=True (--auto-id)`. Then only the option stays.
    """
    message = _BOTH_WAYS.sub(_as_option, message)
    names = [param.name for param in verb.params if "_" in param.name and f"--{_dashed(param.name)}" in param.opts]
    if not names:
        return message
    argument = re.compile(rf"(?<![\w/.'-])({'|'.join(names)})(=|(?![\w/'-]|\.\w))")  # not inside a path
    return argument.sub(lambda found: f"--{_dashed(found[1])}{' ' if found[2] else ''}", message)


def _as_option(both: re.Match[str]) -> str:
    if f"--{_dashed(both['name'])}" != both["option"]:
        return both[0]
    value = "" if both["own"] or both["value"] in (None, "True") else f" {both['value']}"
    return f"{both['option']}{both['own']}{value}"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _fail(message: str, debug: bool, tables: Iterable[str] = ()) -> None:
    """Print `message` as one line on standard error, then `tables`, and exit with code 1.

    With `debug` the traceback comes first.
    """
    if debug:
        import traceback

        traceback.print_exc()
    print_error(redacted(message))
    for table in tables:
        print(visible(table, lines=True), file=sys.stderr)
    raise typer.Exit(1) from None


def _print_version(on: bool) -> None:
    if on:
        print(f"hybridsearch {__version__}")
        raise typer.Exit


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print_error(f"warning: {redacted(message)}")
