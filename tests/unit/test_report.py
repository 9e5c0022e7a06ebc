"""report.html: whole, honest, safe against what a name may hold, and at rest in a browser."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import strop
from strop.compiler.bundle import Bundle
from strop.host.cli import run
from strop.host.picture import Curve
from strop.host.profile import KernelCost, Profile
from strop.host.report import write_report
from strop.host.report.charts import Axis, averaged, losses, scores
from strop.host.report.html import Html, tag, void
from strop.host.runs import read_report
from strop.host.zoo import load_model

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOADS = {"script", "img", "iframe", "object", "embed", "audio", "video", "source", "base", "form"}
VOID = {"meta", "link", "line", "rect", "polyline", "polygon"}


class Reader(HTMLParser):
    """Checks that what is opened is closed, and collects elements and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def trained(tmp_path: Path, *words: str, status: int = 0) -> Reader:
    """The page of a run, as the command leaves it."""
    folder = tmp_path / "run"
    started = ["train", "mlp-64-32-10", "--rule", "tpsgd", "--steps", "400", "--run-dir", str(folder), "-q"]
    assert run([*started, *words]) == status
    return Reader((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    _, model, example = load_model("mlp-64-32-10")
    return strop.build(model, example, name="<b>&\"mine\"", rule="tpsgd", board="qemu-rv32imf")


CURVE = Curve([2.0, float("nan"), 1.0, float("inf"), 0.5], [(2, 0.5), (4, 0.75)])


# --- what a run leaves --------------------------------------------------------------------------------------------


def test_a_run_leaves_a_page(tmp_path: Path) -> None:
    page = trained(tmp_path, "--checkpoint-every", "100")
    result = read_report(tmp_path / "run")["result"]
    assert str(tmp_path / "run" / "report.html") == result["report"]
    assert f"{result['accuracy']:.1%}" in page.texts
    assert f"{result['loss']:.4f}" in page.texts
    assert "done" in page.texts, "it is written when the run has ended"
    dots = [attributes for name, attributes in page.elements if name == "circle"]
    assert len(dots) == 4
    command = read_report(tmp_path / "run")["command"]
    for words in ("layer0_dense_relu", command, "zig", "-ffp-contract=off", "torch", "TpSGD"):
        assert words in page.text, words


def test_nothing_is_loaded(tmp_path: Path) -> None:
    page = trained(tmp_path)
    text = (tmp_path / "run" / "report.html").read_text()
    assert not {name for name, _ in page.elements} & LOADS
    assert not re.search(r"https?:|//|@import|url\(|file:", text.replace(str(tmp_path), ""))
    links = [attributes["href"] for _, attributes in page.elements if "href" in attributes]
    assert links == ["data:,"]
    assert "default-src 'none'" in text


def test_a_run_that_failed_has_a_page_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from strop.host.trainer import Training

    save, count = Training._save, []

    def failing(self: Training, *meter: object) -> None:
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        save(self, *meter)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "_save", failing)
    page = trained(tmp_path, "--checkpoint-every", "100", status=130)
    assert "interrupted" in page.texts
    assert any("stopped at step 200" in text for text in page.texts)


def test_it_is_written_anew_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    file = tmp_path / "run" / "report.html"
    first = file.read_text()
    file.unlink()
    assert run(["report", str(tmp_path / "run"), "--json"]) == 0
    assert file.read_text() == first
    capsys.readouterr()
    assert run(["report", str(tmp_path), "--json"]) == 1
    assert "not the folder of a run" in capsys.readouterr().out


# --- pieces -------------------------------------------------------------------------------------------------------


def test_html_escapes_all_but_markup() -> None:
    assert tag("p", "<&>", Html("<i>"), 3, None, class_="a\"b", stroke_width=2, id=None) == (
        '<p class="a&quot;b" stroke-width="2">&lt;&amp;&gt;<i>3</p>'
    )
    assert void("line", x1=1) == '<line x1="1"/>'


def test_names_are_text(bundle: Bundle, tmp_path: Path) -> None:
    settings = {"model": "<script>alert(1)</script>", "freeze": ["<i>"]}
    page = Reader(write_report(tmp_path, {"settings": settings}, bundle, CURVE).read_text())
    assert not {"script", "b" * 2, "i2"} & {name for name, _ in page.elements}
    assert "<script>alert(1)</script>" in page.texts
    assert any(text.startswith('<b>&"mine" learns by TpSGD') for text in page.texts)


def test_memory_is_what_was_measured(bundle: Bundle, tmp_path: Path) -> None:
    page = Reader(write_report(tmp_path, {}, bundle, CURVE).read_text())
    found = bundle.report
    assert found.firmware
    for size in (found.ram.params, found.ram.activations, found.ram.stack, found.flash.code):
        assert f"{size:,} B" in page.texts
    assert any(f"of {found.firmware.ram_available:,} B" in text for text in page.texts)
    rectangles = [attributes for name, attributes in page.elements if name == "rect"]
    assert len(rectangles) == len(bundle.plan.arena["train_step"])
    for box in rectangles:
        assert float(box["x"] or -1) >= 0
        assert float(box["y"] or -1) >= 0


def test_kernels_with_and_without_a_profile(bundle: Bundle, tmp_path: Path) -> None:
    rows = bundle.manifest["kernels"]
    plain = Reader(write_report(tmp_path, {}, bundle, CURVE).read_text())
    assert all(row["name"] in plain.texts for row in rows)
    assert "share of MACs" in plain.texts
    costs = tuple(KernelCost(row["name"], row["layer"], 1000.0 + i, row["macs"], None) for i, row in enumerate(rows))
    profile = Profile(12345.0, 1, 2, 3, 4, costs)
    counted = Reader(write_report(tmp_path, {}, bundle, CURVE, profile=profile).read_text())
    assert all(f"{1000 + i:,}" in counted.texts for i in range(len(rows)))
    assert "12.3 k" in counted.texts


def test_bytes_of_a_dense_layer(bundle: Bundle, tmp_path: Path) -> None:
    """Weights, bias, input and output, four bytes each."""
    page = Reader(write_report(tmp_path, {}, bundle, CURVE).read_text())
    at = page.texts.index("layer0_dense_relu")
    assert page.texts[at + 1 : at + 3] == ["2,048", f"{4 * (64 * 32 + 32 + 64 + 32):,}"]


def test_losses_that_are_no_numbers() -> None:
    assert averaged([2.0, float("nan"), 1.0], 3) == [(1.0, 2.0), (3.0, 1.0)]
    assert "no loss was a number" in losses([float("nan")])
    assert "no loss was a number" in losses([])
    assert "nothing was held out" in scores([], percent=True, name="accuracy")
    score = scores([(1, 0.0)], percent=False, name="x")
    for drawn in (losses(CURVE.losses), losses([0.0] * 5), losses([-3.0, -2.0]), score):
        assert not re.search(r"nan|inf", drawn)
        assert drawn.startswith("<svg")


def test_averaging_keeps_the_mean() -> None:
    values = list(np.random.default_rng(0).random(997))
    points = averaged(values, 50)
    assert len(points) == 50
    assert np.mean([y for _, y in points]) == pytest.approx(np.mean(values), rel=0.01)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 11496), (0.8, 1.0), (0, 3e-7), (-5, 5), (2, 2)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    axis = Axis(low, high, 0, 100)
    ticks = axis.ticks(5)
    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in ticks)
    assert axis(low) == 0
    assert axis(low - 100) == 0
    if high > low:
        assert len(ticks) >= 3
        assert axis(high) == 100


# --- a browser ----------------------------------------------------------------------------------------------------


def browsed(page: Path, *options: str) -> tuple[str, list[str]]:
    """The page's elements after loading, and what the browser's console says."""
    assert BROWSER
    command: Sequence[str] = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
        f"--user-data-dir={page.parent}/browser", "--window-size=1240,2400", *options, "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_a_browser_is_content(tmp_path: Path) -> None:
    """No error and, since the page's own policy forbids any, no request; a page with an image is told apart."""
    trained(tmp_path)
    file = tmp_path / "run" / "report.html"
    dom, console = browsed(file, f"--screenshot={tmp_path}/page.png")
    assert console == []
    assert "learns by TpSGD" in dom
    assert len(re.findall("<polyline", dom)) == 3
    broken = tmp_path / "broken.html"
    broken.write_text(file.read_text().replace("<main>", '<main><img src="http://localhost/a.png">'))
    _, console = browsed(broken)
    assert any("Content Security Policy" in line or "violates" in line for line in console)


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_it_is_drawn_light_and_dark(tmp_path: Path) -> None:
    from matplotlib.image import imread

    trained(tmp_path)
    shades = []
    for name, options in (("light", ()), ("dark", ("--blink-settings=preferredColorScheme=0",))):
        picture = tmp_path / f"{name}.png"
        command = [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            f"--user-data-dir={tmp_path}/{name}", "--window-size=1240,1600", *options, f"--screenshot={picture}",
            (tmp_path / "run" / "report.html").as_uri(),
        ]  # fmt: skip
        subprocess.run(command, capture_output=True, timeout=120, check=False)
        pixels = imread(picture)[..., :3]
        assert pixels.std() > 0.02, "something is drawn"
        shades.append(float(np.median(pixels)))
    assert shades[0] > 0.9
    assert shades[1] < 0.2
