"""The program: its verbs, what they all do about errors, and how it ends.

Every verb prints for people, or with `--json` exactly one JSON document. It exits with 0, with 1 and one line on
standard error (after which a table may come), with 2 where the command line itself is wrong, or with 130 after Ctrl-C.
Libraries are imported by the verb that needs them, so that `--help` answers at once.
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
from typer.core import TyperGroup

from hybridsearch import __version__
from hybridsearch.errors import HybridSearchError
from hybridsearch.messages import redacted


class _Verbs(TyperGroup):
    """The verbs, with what they all do about errors."""

    def invoke(self, ctx: Any) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a broken pipe shows here, not while the interpreter ends
        except HybridSearchError as error:
            tables = getattr(error, "__notes__", ())
            _fail(_with_options(str(error), self.commands[ctx.invoked_subcommand]), debug, tables)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except KeyboardInterrupt as interrupt:
            if interrupt.args:
                print(f"hybridsearch: interrupted: {interrupt}", file=sys.stderr)
            raise typer.Exit(130) from None
        except OSError as error:
            _fail(f"{error}.", debug)
        except MemoryError:
            _fail("There is not enough memory for this; try a smaller --batch-size.", debug)
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):
                if isinstance(message := getattr(error, "message", None), str):
                    error.message = redacted(message) + _dash_hint(error)  # type: ignore[attr-defined]
                raise  # a usage error or an exit, which the framework handles
            _fail(
                f"Unexpected {type(error).__name__}: {error} "
                "(run `hybridsearch --debug ...`, or set HYBRIDSEARCH_DEBUG=1, to see where).",
                debug,
            )
        return result


def _dash_hint(error: Exception) -> str:
    """What to do where a word of a query was taken for an option."""
    verb = getattr(getattr(error, "ctx", None), "command", None)
    takes_query = any(param.name == "words" for param in getattr(verb, "params", ()))
    if not takes_query or type(error).__name__ != "NoSuchOption" or getattr(error, "possibilities", None):
        return ""
    return ". If it is a word of the query, put all options first and -- before the query."


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search your text with BM25, sparse and dense retrieval, fused, reranked and explained.",
    epilog="Start with: hybridsearch index FOLDER --index my-index, then: hybridsearch search my-index",
)


def main() -> None:
    """The program `hybridsearch`."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.showwarning = _show_warning
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
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
        bool, typer.Option("--debug", envvar="HYBRIDSEARCH_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=lambda on: _print_version(on), is_eager=True),  # noqa: PLW0108 - is defined below
    ] = False,
) -> None:
    pass


_VALUE = r"""=(?P<value>'[^']*'|\[[^\]]*\]|\{[^}]*\}|[^\s(),;]+)"""
_BOTH_WAYS = re.compile(rf"\b(?P<name>\w+)(?:{_VALUE})? \((?P<option>--[\w-]+)(?P<own>[^()]*)\)")


def _with_options(message: str, verb: Any) -> str:
    """`message` with the options of this verb in place of Python's arguments: `top_k=5` becomes `--top-k 5`.

    A message that says it both ways, as in `auto_id=True (--auto-id)`, keeps the option.
    """
    message = _BOTH_WAYS.sub(_as_option, message)
    names = [param.name for param in verb.params if "_" in param.name and f"--{_dashed(param.name)}" in param.opts]
    if not names:
        return message
    argument = re.compile(rf"(?<![\w/.'-])({'|'.join(names)})(=|(?![\w/'-]|\.\w))")  # and no part of a path
    return argument.sub(lambda found: f"--{_dashed(found[1])}{' ' if found[2] else ''}", message)


def _as_option(both: re.Match[str]) -> str:
    if f"--{_dashed(both['name'])}" != both["option"]:
        return both[0]
    value = "" if both["own"] or both["value"] in (None, "True") else f" {both['value']}"
    return f"{both['option']}{both['own']}{value}"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _fail(message: str, debug: bool, tables: Iterable[str] = ()) -> None:
    """One line on standard error, what is too long for it, and exit code 1; with `debug` the traceback before it."""
    if debug:
        import traceback

        traceback.print_exc()
    for text in (f"hybridsearch: {redacted(' '.join(message.split()))}", *tables):
        print(text, file=sys.stderr)
    raise typer.Exit(1) from None


def _print_version(on: bool) -> None:
    if on:
        print(f"hybridsearch {__version__}")
        raise typer.Exit


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"hybridsearch: warning: {redacted(' '.join(str(message).split()))}", file=sys.stderr)
