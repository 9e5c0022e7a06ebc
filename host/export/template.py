"""Files with places to fill in: `@name@`.

A place that has a list repeats its line for each item. A line that begins with the place of a flag is there, without
that place, where the flag is set. `@at@` is an @.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

from strop.errors import StropError

Fields = Mapping[str, str | Sequence[str] | bool]

PLACE = re.compile(r"@(\w+)@")


def filled(text: str, fields: Fields) -> str:
    """The text with every place filled in. Raises StropError for one that no field fills."""
    return "".join(line for raw in text.splitlines(keepends=True) for line in _lines(raw, fields))


def _lines(line: str, fields: Fields) -> Iterator[str]:
    while (flag := PLACE.match(line)) and isinstance(fields.get(flag[1]), bool):
        if not fields[flag[1]]:
            return
        line = line[flag.end() :]
    lists = [name for name in PLACE.findall(line) if isinstance(fields.get(name), list | tuple)]
    if not lists:
        yield PLACE.sub(lambda place: _text(place[1], fields), line)
        return
    for item in fields[lists[0]]:  # type: ignore[union-attr]
        yield from _lines(line.replace(f"@{lists[0]}@", item), fields)


def _text(name: str, fields: Fields) -> str:
    if name == "at":
        return "@"
    if name not in fields:
        raise StropError(f"a template has a place {name!r} that nothing fills")
    return str(fields[name])


def template(path: str, fields: Fields) -> str:
    """One template, filled in."""
    return filled(_root().joinpath(path).read_text(encoding="utf-8"), fields)


def templates(folder: str) -> list[str]:
    """Every file of a folder, by its path in it."""
    return sorted(_inside(_root().joinpath(folder), ""))


def _inside(folder: Traversable, prefix: str) -> Iterator[str]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _inside(item, f"{prefix}{item.name}/")
        else:
            yield f"{prefix}{item.name}"


def _root() -> Traversable:
    return files("strop.host.export").joinpath("templates")
