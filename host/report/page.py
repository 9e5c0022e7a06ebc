"""The page: a run's figures at the top, then curves, memory, kernels, and all it takes to do it again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from strop.compiler.kernels import kernel_runs
from strop.host.report.charts import losses, scores
from strop.host.report.html import Html, join, tag, text, void
from strop.host.report.memory import arena, fill, whole

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.footprint import Report as Footprint
    from strop.host.picture import Curve
    from strop.host.profile import Profile

SETTINGS = ("rule", "optimizer", "lr", "loss", "dtype", "batch", "seed", "data", "epochs", "steps", "board")
"""Options that stand first among the settings."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser is to allow the page: its own style, no script, and no request at all."""


@dataclass(frozen=True)
class Story:
    """What a page tells. run: the run's report.json.  footprint: None where it was not measured.  profile: the same."""

    run: Mapping[str, Any]
    bundle: "Bundle"
    curve: "Curve"
    footprint: "Footprint | None" = None
    profile: "Profile | None" = None

    @property
    def result(self) -> Mapping[str, Any]:
        """What the run found out."""
        return self.run.get("result") or {}

    @property
    def score(self) -> str:
        """What is measured on held-out samples."""
        return "accuracy" if self.bundle.manifest["classes"] else "mean squared error"


def page(story: Story) -> str:
    """The whole document; it needs no other file and no network."""
    title = f"{story.bundle.manifest['name']} on {_where(story)}"
    parts = [_head(story), _tiles(story), _curves(story), _memory(story), _kernels(story), _again(story)]
    version = story.run.get("versions", {}).get("strop", "")
    about = f"Written by strop {version}. This page is one file and loads nothing."
    body = tag("body", tag("main", *parts, tag("footer", about)))
    head = tag(
        "head", void("meta", charset="utf-8"), Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>'),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("link", rel="icon", href="data:,"), tag("title", title), tag("style", _style()),
    )  # fmt: skip
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _style() -> Html:
    return Html(files("strop.host.report").joinpath("style.css").read_text(encoding="utf-8"))


def _head(story: Story) -> Html:
    facts, run = story.bundle.manifest, story.run
    rule = str(facts.get("rule", "")).partition("(")[0]
    status = str(run.get("status", "done"))
    began = str(run.get("started", "")).replace("T", " ").replace("+00:00", " UTC")
    lasted = f", {run['seconds']:,.1f} s" if "seconds" in run else ""
    about = join(
        tag("span", status, class_=f"badge {status}"), f" {began}{lasted} · {story.bundle.board.description} · model ",
        tag("code", facts["hash"][:12]),
    )  # fmt: skip
    title = tag("h1", f"{facts['name']} learns by {rule} on {_where(story)}")
    return tag("header", title, tag("p", about, class_="muted"), _failure(run))


def _where(story: Story) -> str:
    return "this PC" if story.bundle.board.is_host else story.bundle.board.name


def _failure(run: Mapping[str, Any]) -> Html | None:
    error = run.get("error")
    return tag("p", f"{error['kind']}: {error['what']}", class_="failed") if error else None


def _tiles(story: Story) -> Html:
    tiles = [
        tag("div", tag("b", value), tag("span", name), class_="tile first" if i == 0 else "tile")
        for i, (name, value) in enumerate(_figures(story))
    ]
    return tag("div", *tiles, class_="tiles")


def _figures(story: Story) -> Iterator[tuple[str, str]]:
    found, cost = story.result, story.footprint
    if story.curve.scores:
        value = story.curve.scores[-1][1]
        shown = f"{value:.1%}" if story.bundle.manifest["classes"] else f"{value:.4g}"
        yield f"held-out {story.score}", shown
    if found.get("loss") is not None:
        yield "final loss", f"{found['loss']:.4f}"
    yield "training steps", f"{len(story.curve.losses):,}"
    if per_step := _per_step(story):
        yield f"{story.bundle.board.counter.unit} a step", _short(per_step)
    if found.get("steps_per_second"):
        yield "steps a second", f"{found['steps_per_second']:,.0f}"
    if cost:
        yield "RAM to train", _size(cost.ram.total)
        if cost.flash.code is not None:
            yield "flash", _size(cost.flash.total)


def _per_step(story: Story) -> float:
    if story.profile:
        return story.profile.instructions_per_step
    return float(story.result.get("cost_per_step") or 0)


def _short(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def _size(count: int) -> str:
    return f"{count / 1024:.1f} KB" if count >= 1024 else f"{count} B"


def _curves(story: Story) -> Html:
    measured = f"{story.score} on held-out samples"
    percent = bool(story.bundle.manifest["classes"])
    left = tag("div", tag("h3", "Training loss"), losses(story.curve.losses))
    right = tag("div", tag("h3", measured.capitalize()), scores(story.curve.scores, percent=percent, name=measured))
    return tag("section", tag("h2", "Learning"), whole(left, right))


def _memory(story: Story) -> Html:
    heading = tag("h3", "Activations and scratch in a training step")
    return tag("section", tag("h2", "Memory"), _fills(story), heading, arena(story.bundle.plan))


def _fills(story: Story) -> Html:
    cost, sizes = story.footprint, story.bundle.plan.sizes
    if cost is None:
        planned = {"parameters": sizes["params"], "state": sizes["state"], "activations": sizes["arena"]}
        return whole(fill("RAM", planned, None), fill("Flash", {"constants": sizes["params"] + sizes["const"]}, None))
    ram = {
        "parameters": cost.ram.params, "state": cost.ram.state, "activations": cost.ram.activations,
        "scratch": cost.ram.scratch, "stack": cost.ram.stack or 0,
    }  # fmt: skip
    flash = {"constants": cost.flash.params + (cost.flash.rodata or 0), "code": cost.flash.code or 0}
    if cost.firmware is None:
        return whole(fill("RAM", ram, None), fill("Flash", flash, None))
    ram["session"] = max(cost.firmware.ram - sum(ram.values()), 0)
    flash["session"] = max(cost.firmware.flash - sum(flash.values()), 0)
    return whole(fill("RAM", ram, cost.firmware.ram_available), fill("Flash", flash, cost.firmware.flash_available))


def _kernels(story: Story) -> Html:
    """A row a kernel: what it multiplies and moves, and what it costs where that was counted."""
    rows = list(_kernel_rows(story))
    heads = ["layer", "kernel", "MACs", "bytes"] + (["instructions", "a MAC"] if story.profile else [])
    top = max((weight for weight, _ in rows), default=0) or 1
    body = [tag("tr", *cells, _share(weight / top)) for weight, cells in rows]
    numbers = len(heads) - 2
    head = [tag("th", name, class_="number" if i >= len(heads) - numbers else None) for i, name in enumerate(heads)]
    share = "share of instructions" if story.profile else "share of MACs"
    table = tag("table", tag("thead", tag("tr", *head, tag("th", share))), tag("tbody", *body))
    how = (
        f"Counted on {story.bundle.board.name}, mean of {story.profile.steps} steps." if story.profile
        else "From the program; strop report RUN --profile counts instructions on an emulated board."
    )  # fmt: skip
    return tag("section", tag("h2", "Kernels of a training step"), tag("p", how, class_="muted"), _scrolled(table))


def _kernel_rows(story: Story) -> Iterator[tuple[float, list[Html]]]:
    program = story.bundle.program
    runs = kernel_runs(program.train_step)
    counted: Sequence[Any] = story.profile.kernels if story.profile else [None] * len(story.bundle.manifest["kernels"])
    for row, (op, times), cost in zip(story.bundle.manifest["kernels"], runs, counted, strict=True):
        moved = times * sum(program.values[name].bytes for name in {*op.inputs, *op.outputs})
        cells = [tag("td", row["layer"]), tag("td", row["name"], class_="mono"), _number(row["macs"]), _number(moved)]
        if cost:
            per_mac = "" if cost.instructions_per_mac is None else f"{cost.instructions_per_mac:.2f}"
            cells += [_number(cost.instructions), tag("td", per_mac, class_="number")]
        yield (cost.instructions if cost else row["macs"]), cells


def _share(part: float) -> Html:
    bar = tag("i", style=f"width:{100 * part:.1f}%") if part else None
    return tag("td", bar, class_="share")


def _number(value: float) -> Html:
    return tag("td", f"{value:,.0f}" if value else "", class_="number")


def _scrolled(table: Html) -> Html:
    return tag("div", table, class_="scroll")


def _again(story: Story) -> Html:
    """All it takes to do the run again: command, settings, versions, compiler."""
    run = story.run
    settings = {**dict.fromkeys(SETTINGS), **run.get("settings", {})}
    chosen = {name.replace("_", " "): _shown(value) for name, value in settings.items() if value not in _EMPTY}
    tools = {name: value for name, value in run.get("tools", {}).items() if value}
    left = join(tag("h3", "Settings"), _facts(chosen))
    right = join(tag("h3", "Made with"), _facts({**tools, **run.get("versions", {})}))
    made = {key: story.bundle.manifest.get(key, "") for key in ("rule", "optimizer", "loss", "dtype", "hash")}
    details = join(
        tag("details", tag("summary", "The compiled program"), _facts(made), tag("pre", story.bundle.program.text)),
        tag("details", tag("summary", "The memory map"), tag("pre", story.bundle.plan.text)),
    )
    command = tag("pre", run["command"]) if run.get("command") else None
    both = whole(tag("div", left), tag("div", right))
    return tag("section", tag("h2", "To do it again"), command, tag("p"), both, details)


_EMPTY: Sequence[Any] = (None, "", [], False)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _facts(rows: Mapping[str, Any]) -> Html:
    cells = [tag("tr", tag("td", name), tag("td", text(value))) for name, value in rows.items()]
    return tag("table", tag("tbody", *cells), class_="facts")
