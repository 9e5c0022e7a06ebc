"""The whole path on real data: handwritten digits, two learning rules, an emulated board, its twin and PyTorch."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from strop.compiler.optim import SGD, Optimizer
from strop.compiler.pipeline import build
from strop.compiler.rules import Backprop, TpSGD
from strop.compiler.rules.base import Rule
from strop.host.data import Order, Signature, load_data
from strop.host.device import Device, connect, twin
from strop.host.footprint import report
from strop.host.picture import Curve, learning_curves
from strop.host.progress import Terminal
from strop.host.reference import reference
from strop.host.reference.base import one_thread
from strop.host.runs import Run
from strop.host.trainer import Training
from strop.host.validate import unequal
from strop.host.zoo import load_model
from strop.targets.board import Board

BOARD, MODEL = "qemu-rv32imf", "digits-cnn"


@dataclass(frozen=True)
class Recipe:
    """A rule with what it trains well with, found on a part of the training samples, never on the held-out ones."""

    rule: Rule
    optimizer: Optimizer
    epochs: int


RECIPES = (
    Recipe(TpSGD(), SGD(lr=0.03), epochs=5),
    Recipe(Backprop(), SGD(lr=0.05), epochs=3),
)


@dataclass(frozen=True)
class Result:
    """One rule. Accuracies: share of the held-out digits, after the same samples in the same order.

    ram_bytes, flash_bytes: of the model with everything a training step needs, stack included.
    """

    rule: str
    board_accuracy: float
    twin_accuracy: float
    torch_accuracy: float
    bits_equal: bool
    ram_bytes: int
    flash_bytes: int
    instructions_per_step: float

    def to_json(self) -> dict[str, Any]:
        """The result as `strop demo --json` prints it."""
        return asdict(self)


def run_demo(board: Board, run: Run, terminal: Terminal, *, toolchain: str, timeout: float) -> list[Result]:
    """Train by every recipe on a board, its twin and PyTorch; leaves learning curves in the run's folder."""
    results, curves = [], {}
    for recipe in RECIPES:
        trial = Trial(recipe, board, run, terminal, toolchain)
        with ThreadPoolExecutor(1) as pool:
            peer = pool.submit(trial.on_torch)  # beside the emulator, which is a process of its own
            with connect(trial.bundle, toolchain=toolchain, timeout=timeout) as device:
                results.append(trial.result(device, peer))
        curves[recipe.rule.name] = trial.curve
        learning_curves(run.path("learning-curve.png"), curves)
    return results


class Trial:
    """One recipe on every machine."""

    def __init__(self, recipe: Recipe, board: Board, run: Run, terminal: Terminal, toolchain: str) -> None:
        self.recipe, self.run, self.terminal, self.toolchain = recipe, run, terminal, toolchain
        self.name = recipe.rule.name
        _, self.model, example = load_model(MODEL)
        with terminal.working(f"building {self.name}") as stage:
            self.bundle = build(
                self.model, example, name=MODEL, board=board, rule=recipe.rule, optimizer=recipe.optimizer,
                progress=stage,
            )  # fmt: skip
        self.data = load_data("digits", Signature.of(self.bundle.manifest))
        self.order = Order(len(self.data.x), self.bundle.manifest["batch"], recipe.rule.seed)
        self.steps = recipe.epochs * self.order.steps_per_epoch
        self.curve = Curve((), ())

    def result(self, device: Device, peer: "Future[float]") -> Result:
        """Train board and twin, and put all figures side by side."""
        cost = self._on_board(device)
        with twin(self.bundle, toolchain=self.toolchain) as pc:
            self.curve = self._on_twin(pc)
            footprint = report(self.bundle, toolchain=self.toolchain)
            return Result(
                self.name, self._accuracy(device), self._accuracy(pc), peer.result(),
                not unequal(device.tensors(), pc.tensors()), footprint.ram.total, footprint.flash.total, cost,
            )  # fmt: skip

    def on_torch(self) -> float:
        """Train the independent reference on the same samples in the same order; returns its accuracy."""
        peer = reference(self.recipe.rule, self.model, "cross_entropy", self.recipe.optimizer)
        assert peer is not None
        with one_thread():
            for i in self.order.indices(0, self.steps):
                peer.step(self.data.x[i : i + 1], self.data.y[i : i + 1])
        return float((peer.infer(self.data.x_test).argmax(axis=1) == self.data.y_test).mean())

    def _on_board(self, device: Device) -> float:
        """Train the board with a bar; returns instructions a step."""
        checkpoint = self.run.path(f"{self.name}.npz")
        every = self.order.steps_per_epoch
        training = Training(device, self.data, self.order, checkpoint, every, measures=False)
        with self.terminal.meter(f"{self.name} on {device.name}", self.steps) as meter:
            training.run(self.steps, meter)
        return training.mean_cost

    def _on_twin(self, pc: Device) -> Curve:
        """Train the twin the same way; returns the curve, which is the board's if the bits are."""
        losses: list[float] = []
        scores: list[tuple[int, float]] = []
        every = self.order.steps_per_epoch
        for start in range(0, self.steps, every):
            chosen = self.order.indices(start, start + every)
            losses.extend(pc.train(self.data.x[chosen], self.data.y[chosen]))
            scores.append((start + every, self._accuracy(pc)))
        return Curve(losses, scores)

    def _accuracy(self, device: Device) -> float:
        return device.evaluate(self.data.x_test, self.data.y_test)
