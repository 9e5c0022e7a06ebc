"""What local rules share: the activity of a block as one row of features a sample, and linear heads on it."""

from math import inf, prod, sqrt

import numpy as np

from strop.compiler import rng as generator
from strop.compiler.ir import Builder, Role
from strop.compiler.ops.base import f32
from strop.compiler.rules.base import Block
from strop.errors import RuleError


def rows(b: Builder, block: Block, grid: int = 1) -> str:
    """Emit what an objective sees of a block, (B,n).

    The units of a fully connected layer, the last step of a recurrent one, and of an image the means over a grid of at
    most grid x grid cells, as many as it has places along each axis: its channel means for grid 1. Raises RuleError for
    a fully connected layer that runs at every step of a sequence.
    """
    activity = block.activity
    shape = b.values[activity].shape
    check_rows(shape[0], next(value.shape[0] for value in b.values.values() if value.role is Role.INPUT), block.loc)
    if len(shape) == 2:
        return activity
    batch, channels, *image = shape
    cells = tuple(min(grid, size) for size in image)
    pooled = _pooled(b, activity, tuple(image), cells, block.loc)
    return b.emit1("reshape", (pooled,), f"{activity}.rows", loc=block.loc, shape=(batch, channels * prod(cells)))


def _pooled(b: Builder, activity: str, image: tuple[int, ...], cells: tuple[int, ...], loc: str) -> str:
    """Emit means over cells; nothing where each place is a cell of its own."""
    if cells == image:
        return activity
    name = f"{activity}.mean"
    if any(size % count for size, count in zip(image, cells, strict=True)):
        return b.emit1("adaptive_avg_pool2d", (activity,), name, loc=loc, grid=cells)
    window = tuple(size // count for size, count in zip(image, cells, strict=True))
    return b.emit1("avg_pool2d", (activity,), name, loc=loc, kernel=window, stride=window, padding=(0, 0))


def head(b: Builder, block: Block, seen: str, units: int, seed: int | None = None) -> str:
    """Declare a linear head without bias on what is seen of a block: a state of shape (units,n).

    seed: of initial values uniform in +-1/sqrt(n) (kaiming-uniform with a = sqrt 5), element k n + j of the stream
    named after the head; zeros if not given.  Raises RuleError for a second head of the same weight.
    """
    name, features = head_name(block), b.values[seen].shape[1]
    if name in b.values:
        raise RuleError(f"{block.weight} serves two layers, and each would have a head of the same name",
                        where=block.loc, do="Use tpsgd, or train the network as one block, by backprop")  # fmt: skip
    data = np.zeros((units, features), np.float32)
    if seed is not None:
        share = generator.uniform(seed, generator.tensor_key(name), np.arange(data.size).reshape(data.shape))
        data = (2 * share - 1) * np.float32(1 / sqrt(features))
    return b.value(name, f32(units, features), Role.STATE, block.loc, data)


def head_name(block: Block) -> str:
    """Of the state that is a block's local head."""
    return f"{block.weight}.head"


def check_rows(rows: int, batch: int, loc: str) -> None:
    """Raise RuleError for a layer with several rows of activity a sample, where a label is one target."""
    if rows != batch:
        raise RuleError(
            f"the layer works at each of {rows // batch} steps, so a sample has {rows // batch} rows of activity for"
            " one label", where=loc, do="Take the mean or the last of the steps before this layer, or use backprop",
        )  # fmt: skip


def check_grid(grid: int) -> None:
    """Raise RuleError for a grid without cells."""
    if grid < 1:
        raise RuleError(f"an image cannot be seen as {grid} x {grid} cells", do="Give at least 1")


def check_strength(strength: float) -> None:
    """Raise RuleError for an objective that would do nothing, or drive away."""
    if not 0 < strength < inf:
        raise RuleError(f"the strength of a local objective must be positive, not {strength}")
