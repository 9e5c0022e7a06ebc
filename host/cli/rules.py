"""`rules`: learning rules, their settings and how to give them."""

from dataclasses import Field, fields
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from typer import Argument

from strop.host.cli.choices import OPTION_OF, rule_class_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.show import facts, table

if TYPE_CHECKING:
    from strop.compiler.rules.base import Rule

SHARED = ("freeze", "seed", "truncate")
"""Settings of every rule."""

Name = Annotated[str, Argument(metavar="[NAME]", help="A rule's name, or file.py:Class.", show_default=False)]


@verb()
def rules(name: Name = "") -> Outcome:
    """Show the learning rules, or one of them with its settings."""
    from strop.compiler.rules import rules as known

    if name:
        found = described(rule_class_of(name))
        return Outcome(found, lambda out: _show(out, found))
    all_of_them = [described(kind) for kind in known().values()]
    rows = [(rule["name"], rule["what"], _own(rule)) for rule in all_of_them]
    return Outcome({"rules": all_of_them}, lambda out: table(out, ("rule", "", "settings"), rows))


def described(kind: "type[Rule]") -> dict[str, Any]:
    """A rule in words."""
    first = cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    settings = [_setting(item) for item in sorted(fields(kind), key=lambda item: item.name in SHARED)]
    first = first.replace("`", "")
    return {
        "name": kind.name, "what": first.split(". ")[0].rstrip("."), "source": kind.source, "refuses": kind.refuses,
        "settings": settings,
    }  # fmt: skip


def _setting(item: "Field[Any]") -> dict[str, Any]:
    shown = item.metadata
    option = f"--{OPTION_OF[item.name]}" if item.name in OPTION_OF else f"--set {item.name}=…"
    return {
        "name": item.name, "option": option, "default": item.default, "values": shown.get("values", str(item.type)),
        "what": shown.get("what", ""),
    }  # fmt: skip


def _own(rule: dict[str, Any]) -> str:
    """The names of what other rules do not have."""
    return ", ".join(setting["name"] for setting in rule["settings"] if setting["name"] not in SHARED)


def _show(out: Console, rule: dict[str, Any]) -> None:
    facts(out, {key: rule[key] for key in ("name", "what", "source", "refuses") if rule[key]})
    rows = [(s["option"], _text(s["default"]), s["values"], s["what"]) for s in rule["settings"]]
    table(out, ("setting", "default", "values", ""), rows)


def _text(value: Any) -> str:
    if value is None or value == ():
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
