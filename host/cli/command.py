"""What all verbs share: options grouped in dataclasses, one result as text or JSON, errors as one paragraph."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.text import Text

from strop.errors import StropError
from strop.host.cli.options import Shared
from strop.host.progress import Terminal
from strop.host.runs import Interrupted, described, to_json

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells count: 128 + SIGINT."""

Verb = Callable[..., "Outcome"]
SHARED = inspect.Parameter("shared", inspect.Parameter.KEYWORD_ONLY, annotation=Shared)


@dataclass(frozen=True)
class Outcome:
    """What a verb found out. document: for `--json`.  show: prints the same for people.  status: of the process.

    then: what goes on after that is printed.
    """

    document: Mapping[str, Any] | Sequence[Any]
    show: Callable[[Console], None]
    status: int = 0
    then: Callable[[], None] = lambda: None


app = typer.Typer(
    name="strop", add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Train neural networks on microcontrollers, and prove on the PC that they compute the same.",
)  # fmt: skip


def verb(name: str | None = None, group: typer.Typer = app) -> Callable[[Verb], Verb]:
    """Register a function as a command of the program, or of a group of commands.

    It returns its Outcome. A parameter that is a dataclass stands for an option a field; the Shared ones are options of
    every verb, whether it takes them or not.
    """

    def register(function: Verb) -> Verb:
        taken = inspect.signature(function).parameters
        parameters = {SHARED.name: SHARED, **taken}

        @wraps(function)
        def command(**values: Any) -> None:
            arguments = {name: _collect(p, values) for name, p in parameters.items()}
            outcome = function(**{name: arguments[name] for name in taken})
            _print(outcome, arguments[SHARED.name].terminal)
            outcome.then()
            if outcome.status:
                raise typer.Exit(outcome.status)

        expanded = [item for p in parameters.values() for item in _expand(p)]
        command.__signature__ = inspect.Signature(expanded)  # type: ignore[attr-defined]
        command.__annotations__ = {item.name: item.annotation for item in expanded}
        group.command(name)(command)
        return function

    return register


def _is_group(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)


def _collect(parameter: inspect.Parameter, values: Mapping[str, Any]) -> Any:
    """The value of a parameter: one of typer's, or a group made of several."""
    if not _is_group(parameter):
        return values[parameter.name]
    return parameter.annotation(**{f.name: values[f.name] for f in fields(parameter.annotation)})


def _expand(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The parameters that typer sees in place of one."""
    if not _is_group(parameter):
        return [parameter.replace(kind=parameter.KEYWORD_ONLY)]
    group = parameter.annotation
    return [
        parameter.replace(
            name=f.name, kind=parameter.KEYWORD_ONLY, annotation=_in_panel(f, group.panel), default=_default(f)
        )
        for f in fields(group)
    ]


def _in_panel(field: Field[Any], panel: str) -> Any:
    """The field's annotation, its option shown in the panel of its group."""
    kind, option = get_args(field.type)
    option = copy(option)
    option.rich_help_panel = panel
    return Annotated[kind, option]


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _print(outcome: Outcome, terminal: Terminal) -> None:
    if terminal.json:
        print(to_json(outcome.document), flush=True)
    else:
        outcome.show(terminal.out)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; returns its exit status. Whatever goes wrong is told in one paragraph."""
    as_json = "--json" in arguments
    try:
        status = app(list(arguments), standalone_mode=False, prog_name="strop")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone, and Python still flushes
        return 1
    except Exception as error:
        return _fail(error, as_json, verbose=not {"-v", "--verbose"}.isdisjoint(arguments))
    return _fail(Interrupted("interrupted"), as_json) if status == INTERRUPTED else int(status or 0)


def _fail(error: Exception, as_json: bool, *, verbose: bool = False) -> int:
    if as_json:
        print(to_json({"error": described(error)}), flush=True)
        return _status(error)
    console = Console(stderr=True)
    if verbose and not isinstance(error, StropError | typer.TyperException):
        console.print("".join(traceback.format_exception(error)), markup=False, highlight=False)
    console.print(Text.assemble(("error: ", "bold red"), _sentence(error)), soft_wrap=not console.is_terminal)
    return _status(error)


def _status(error: Exception) -> int:
    match error:
        case Interrupted():
            return INTERRUPTED
        case typer.TyperException():
            return error.exit_code
    return 1


def _sentence(error: Exception) -> str:
    match error:
        case StropError():
            return str(error)
        case typer.TyperException():
            return f"{error.format_message().rstrip('.')}. See the same command with --help."
    return f"{type(error).__name__}: {error}. This is a defect of strop: please report it, with what -v adds."
