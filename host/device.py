"""A model that trains: the twin in this process, or a board over its transport, behind the same few methods."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from strop.compiler.dtypes import DTYPES
from strop.errors import DataError, SessionError, nearest
from strop.host.firmware import elf, twin_library
from strop.host.flash import runner_for
from strop.host.instances import Instance
from strop.host.session import InferResult, Session, StepResult
from strop.host.store import SECTOR, UNIT, emulating, open_flash
from strop.host.transport import transport_for
from strop.host.transport.loopback import Twin
from strop.host.transport.serial import at_baud
from strop.host.wire import Stats

if TYPE_CHECKING:
    import torch

    from strop.compiler.bundle import Bundle
    from strop.targets.board import Board

Array = NDArray[Any]
OnStep = Callable[[StepResult], None]


class Backend(Protocol):
    """What runs a model: a session over a wire, or calls into the twin."""

    @property
    def steps(self) -> int:
        """Training steps since the initial parameters."""

    def train(self, samples: Iterable[tuple[bytes, bytes]]) -> Iterator[StepResult]:
        """Train on batches in sequence."""

    def infer(self, xs: Iterable[bytes]) -> Iterator[InferResult]:
        """Outputs of batches."""

    def read_tensor(self, index: int) -> bytes:
        """All bytes of a tensor."""

    def write_tensor(self, index: int, data: bytes) -> None:
        """Overwrite a tensor."""

    def reset(self) -> None:
        """Initial parameters and state."""

    def save(self) -> int:
        """Write a checkpoint; its count of steps."""

    def load(self) -> int:
        """Go back to the newest checkpoint; its count of steps."""

    def forget(self) -> None:
        """Initial parameters and state, and no checkpoint."""

    def autosave(self, steps: int) -> None:
        """Save every so many steps."""

    def stats(self) -> Stats:
        """What the board has counted."""

    def close(self) -> None:
        """Let go of the board."""


class Direct:
    """The twin without frames, for speed: the same C functions called through ctypes."""

    CHUNK = 256
    """Batches a call; between calls the caller sees results and can stop."""

    def __init__(self, twin: Twin, sizes: Sequence[int]) -> None:
        self._twin, self._sizes, self.steps = twin, sizes, twin.steps

    def train(self, samples: Iterable[tuple[bytes, bytes]]) -> Iterator[StepResult]:
        """Train on batches in sequence, some in each call."""
        for chunk in _chunks(samples, self.CHUNK):
            for loss in self._twin.train(b"".join(x for x, _ in chunk), b"".join(y for _, y in chunk)):
                yield StepResult(self.steps, float(loss), 0)
                self.steps += 1

    def infer(self, xs: Iterable[bytes]) -> Iterator[InferResult]:
        """Outputs of batches, some in each call."""
        size = self._twin.hello.out_bytes
        for chunk in _chunks(xs, self.CHUNK):
            outs = self._twin.infer(b"".join(chunk))
            yield from (InferResult(outs[at : at + size], 0) for at in range(0, len(outs), size))

    def read_tensor(self, index: int) -> bytes:
        """All bytes of a tensor."""
        return self._twin.read(index, 0, self._size(index))

    def write_tensor(self, index: int, data: bytes) -> None:
        """Overwrite a tensor."""
        self._twin.write(index, 0, data)

    def reset(self) -> None:
        """Initial parameters and state."""
        self._twin.init()
        self.steps = 0

    def save(self) -> int:
        """Write a checkpoint; its count of steps."""
        self._twin.save()
        return self._twin.steps

    def load(self) -> int:
        """Go back to the newest checkpoint; its count of steps."""
        self._twin.load()
        self.steps = self._twin.steps
        return self.steps

    def forget(self) -> None:
        """Initial parameters and state, and no checkpoint."""
        self._twin.forget()
        self.steps = 0

    def autosave(self, steps: int) -> None:
        """Save every so many steps."""
        self._twin.autosave(steps)

    def stats(self) -> Stats:
        """What the twin has counted."""
        return self._twin.stats()

    def close(self) -> None:
        """Nothing to let go."""

    def _size(self, index: int) -> int:
        return self._sizes[index]


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class Device:
    """A bundle's model on a backend. Use as a context manager, or call `close`.

    Arrays are numpy arrays or torch tensors, batch axis first; x is converted to float32, class labels to int32.
    """

    log: Path | None = None
    """File that takes what the board says, if there is one."""

    def __init__(self, bundle: "Bundle", backend: Backend, name: str, resources: ExitStack | None = None) -> None:
        self.bundle, self.backend, self.name = bundle, backend, name
        self._resources = resources or ExitStack()
        manifest = bundle.manifest
        self.batch: int = manifest["batch"]
        self._tensors: list[dict[str, Any]] = manifest["tensors"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the port and stop what was started for it."""
        self.backend.close()
        self._resources.close()

    @property
    def steps(self) -> int:
        """Training steps since the initial parameters."""
        return self.backend.steps

    def train_step(self, x: Any, y: Any) -> float:
        """Train on one batch; returns its mean loss before the update."""
        return float(self.train(x, y)[0])

    def train(self, xs: Any, ys: Any, *, on_step: OnStep | None = None) -> NDArray[np.float32]:
        """Train on whole batches in sequence, streamed; returns the loss of each.

        xs: (n, ...), ys: (n,) or (n, outputs), n a multiple of the batch.  on_step: called after each step.
        """
        x, y = self._batches(xs, "x"), self._batches(ys, "y")
        if len(x) != len(y):
            raise DataError(f"there are {len(x)} batches of x and {len(y)} of y")
        losses = np.empty(len(x), np.float32)
        samples = ((a.tobytes(), b.tobytes()) for a, b in zip(x, y, strict=True))
        for i, result in enumerate(self.backend.train(samples)):
            losses[i] = result.loss
            if on_step:
                on_step(result)
        return losses

    def infer(self, x: Any, *, on_step: Callable[[InferResult], None] | None = None) -> NDArray[np.float32]:
        """Outputs of any number of samples (n, ...) -> (n, ...); a last incomplete batch is filled up."""
        data = _array(x)
        short = -len(data) % self.batch
        filled = np.concatenate([data, np.repeat(data[-1:], short, axis=0)]) if short else data
        outputs = []
        for result in self.backend.infer(batch.tobytes() for batch in self._batches(filled, "x")):
            outputs.append(result.output)
            if on_step:
                on_step(result)
        shape = self.bundle.manifest["output"]["shape"][1:]
        return np.frombuffer(b"".join(outputs), np.float32).reshape(-1, *shape)[: len(data)]

    def evaluate(self, xs: Any, ys: Any, *, on_step: Callable[[InferResult], None] | None = None) -> float:
        """Accuracy in [0, 1] for class labels, mean squared error for a regression."""
        outputs, labels = self.infer(xs, on_step=on_step), _array(ys)
        if self.bundle.manifest["classes"]:
            return float((outputs.argmax(axis=1) == labels).mean())
        return float(np.square(outputs - labels.reshape(outputs.shape)).mean())

    def tensors(self) -> dict[str, Array]:
        """Trained parameters and optimizer state by name, the very bits."""
        return {
            row["name"]: np.frombuffer(self.backend.read_tensor(i), stored(row)).reshape(row["shape"]).copy()
            for i, row in enumerate(self._tensors)
        }

    def load_tensors(self, tensors: Mapping[str, Any]) -> None:
        """Overwrite parameters or state by name; names not given keep their contents."""
        index = {row["name"]: i for i, row in enumerate(self._tensors)}
        for name, data in tensors.items():
            if name not in index:
                self._fixed(name, data, index)
                continue
            row, array = self._tensors[index[name]], _array(data)
            if list(array.shape) != row["shape"]:
                raise DataError(f"{name} has shape {tuple(array.shape)}, the model's is {tuple(row['shape'])}")
            self.backend.write_tensor(index[name], array.astype(stored(row)).tobytes())

    def _fixed(self, name: str, data: Any, known: Mapping[str, int]) -> None:
        """A value that is not trained may be loaded if it is what the bundle was built with."""
        if name not in self.bundle.state:
            raise DataError(f"the model has no tensor {name!r}", do=nearest(name, known))
        if not np.array_equal(self.bundle.state[name], _array(data)):
            raise SessionError(
                f"{name} is frozen and lies in flash, with other contents", where=self.name,
                do="Build again from a model with these weights",
            )  # fmt: skip

    def state_dict(self) -> dict[str, "torch.Tensor"]:
        """The whole module's state, trained parameters from the device, under the module's own names."""
        import torch

        current = self.tensors()
        tied = self.bundle.tied
        return {
            name: torch.from_numpy(current.get(tied.get(name, name), old).astype(old.dtype))
            for name, old in self.bundle.state.items()
        }

    def reset(self) -> None:
        """Initial parameters and state; a checkpoint stays."""
        self.backend.reset()

    def save(self) -> int:
        """Write a checkpoint into the device's flash, which it goes on from when it starts again; its count of steps.

        Raises SessionError where there is no store, or it is too small or fails.
        """
        return self.backend.save()

    def load(self) -> int:
        """Go back to the newest checkpoint; its count of steps. SessionError where there is none of this model."""
        return self.backend.load()

    def forget(self) -> None:
        """Reset to factory state: initial parameters and state, and no checkpoint left."""
        self.backend.forget()

    def autosave(self, steps: int) -> None:
        """Save by itself whenever the count of steps is a multiple of `steps`; 0: never. Until the device restarts."""
        self.backend.autosave(steps)

    def stats(self) -> Stats:
        """What the board has counted since it started: steps, frames, losses that are no numbers, errors too large."""
        return self.backend.stats()

    def _batches(self, data: Any, which: str) -> Array:
        """(n, ...) as (n / batch, batch, ...) in the dtype of the model; DataError where the shape does not fit."""
        entry, array = self.bundle.manifest[which], _array(data)
        shape = tuple(entry["shape"])
        if array.shape[1:] != shape[1:] or len(array) % self.batch or not len(array):
            raise DataError(
                f"{which} has shape {array.shape}, the model takes batches of {shape}",
                do="Reshape the data, or build for another batch",
            )
        return np.ascontiguousarray(array, entry["dtype"]).reshape(-1, *shape)


def stored(row: Mapping[str, Any]) -> type[Any]:
    """The numpy type of a tensor in a manifest."""
    return DTYPES[row["dtype"]].numpy


def _array(data: Any) -> Array:
    return np.asarray(data.detach().cpu().numpy() if hasattr(data, "detach") else data)


def twin(bundle: "Bundle", *, toolchain: str = "zig", store: Path | str | None = None) -> Device:
    """The bundle's C compiled for this PC and loaded into this process.

    store: a file that plays its flash, made if there is none; it goes on from the checkpoint in it. Without one it
    begins freshly initialised, and its checkpoints end with it.
    """
    sizes = [row["bytes"] for row in bundle.manifest["tensors"]]
    flash = open_flash(sum(sizes), Path(store) if store else None)
    board = Twin(twin_library(bundle, toolchain), flash, sector=SECTOR, unit=UNIT)
    return Device(bundle, Direct(board, sizes), "twin")


def connect(
    bundle: "Bundle",
    *,
    board: "Board | str | None" = None,
    port: str | None = None,
    instance: Instance | None = None,
    toolchain: str = "zig",
    profile: bool = False,
    timeout: float = 5.0,
    on_log: Callable[[str], None] | None = None,
    progress: Callable[[str], None] = lambda stage: None,
    store: Path | str | None = None,
) -> Device:
    """Build the bundle's firmware, flash or start it, and open it.

    board: must be the one the bundle was built for, if given.  port: the address of a board that runs the firmware
    already (`/dev/ttyACM0`, `socket://host:port`); nothing is flashed then.  instance: the board on the desk to flash;
    without one an emulator is started.  profile: count each kernel.
    timeout: seconds of silence after which the board counts as lost; longer than the longest step.
    store: a file that plays an emulated board's flash, made if there is none. A board goes on from its checkpoint, if
    it has one of this model; `Device.steps` tells.
    Raises ToolchainError, FlashError, TransportError or SessionError.
    """
    _same_board(bundle, board)
    resources = ExitStack()
    try:
        file = Path(store) if store else None
        address = (
            _rated(port, bundle) if port
            else _start(bundle, toolchain, profile, resources, progress, instance, file)
        )  # fmt: skip
        progress("open")
        session = Session(transport_for(address), expect_hash=bundle.hash, timeout=timeout, on_log=on_log)
        resources.callback(session.close)
        session.hello()
    except BaseException:
        resources.close()
        raise
    return Device(bundle, session, bundle.board.name, resources)


def _same_board(bundle: "Bundle", board: "Board | str | None") -> None:
    name = getattr(board, "name", board)
    if name not in (None, bundle.board.name):
        raise SessionError(
            f"the bundle was built for {bundle.board.name}, not for {name}", do=f"Build it with board={name!r}"
        )


def _rated(port: str, bundle: "Bundle") -> str:
    """A device is opened at the board's rate, unless the address says another."""
    return at_baud(port, bundle.board.uart.baud if bundle.board.uart else 0)


def _start(
    bundle: "Bundle", toolchain: str, profile: bool, resources: ExitStack, progress: Callable[[str], None],
    instance: Instance | None = None, store: Path | None = None,
) -> str:  # fmt: skip
    """Bring the firmware to life; returns the address of its port."""
    if bundle.board.is_host:
        return f"twin:{twin_library(bundle, toolchain)}"
    progress("compile")
    image: Path = elf(bundle, toolchain=toolchain, profile=profile)
    progress("flash")
    return start(emulating(bundle.board, store) if store else bundle.board, image, resources, instance)


def start(board: "Board", image: Path, resources: ExitStack, instance: Instance | None = None) -> str:
    """Flash an instance, or emulate; returns the address of its port. What was started stops with `resources`."""
    running = resources.enter_context(runner_for(board, instance=instance).start(image))
    return running.endpoint
