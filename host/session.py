"""One board, asked over one transport: train, infer, read and write tensors."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from strop.errors import DataError, SessionError
from strop.host import wire
from strop.host.link import BoardLostError, BoardRestartedError, Link, Request
from strop.host.transport.base import PortClosedError, Transport
from strop.host.wire import Ack, Frame, Hello, Stats, Tensor, Type

__all__ = ["BoardLostError", "BoardRestartedError", "InferResult", "Session", "StepResult"]

PIECE = 1024
"""Bytes of a tensor in one frame: small enough that a damaged one costs little."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One training step: its position since the parameters were initial, mean loss, and cost in counter units."""

    index: int
    loss: float
    cost: int


@dataclass(frozen=True, slots=True)
class InferResult:
    """One batch of outputs as bytes, and its cost in counter units."""

    output: bytes
    cost: int


class Session:
    """Asks one board. Use as a context manager, or call ``close``.

    transport: not yet opened.  expect_hash: the model's 16 bytes, or None for any model.
    timeout: seconds without an answer to the oldest request before the board counts as lost; must be longer than the
    longest step.  retries: resends without progress before the line counts as too noisy.
    reconnects: how often a closed port is opened again; with 0 a closed port is an error at once.
    on_log: takes the lines a board sends; the logger ``strop.board`` by default.
    """

    def __init__(self, transport: Transport, *, expect_hash: bytes | None = None, timeout: float = 5.0,
                 retries: int = 20, reconnects: int = 0, on_log: Callable[[str], None] | None = None) -> None:
        self._link = Link(transport, expect_hash=expect_hash, timeout=timeout, retries=retries,
                          reconnects=reconnects, on_log=on_log)

    def __enter__(self) -> Self:
        self.hello()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def steps(self) -> int:
        """Steps the board is known to have done since its parameters were initial."""
        return self._link.steps

    def hello(self) -> Hello:
        """Ask who the board is and which request comes next, opening the port if need be.

        Raises SessionError when it runs another model or protocol, BoardLostError when it does not answer.
        """
        return self._link.hello(again=True)

    def train(self, samples: Iterable[tuple[bytes, bytes]]) -> Generator[StepResult, None, None]:
        """Train on batches (x, y) in sequence; yield each step's result, in order.

        Samples are taken ahead of the results, as many as the board's window holds. A caller that stops early
        (``close`` the generator) leaves the board up to a window further on: the next ``hello`` tells how far.
        """
        for frame in self._link.stream(_steps(self._link.hello(), samples)):
            ack = Ack.unpack(frame)
            yield StepResult(ack.steps - 1, ack.loss, ack.cost)

    def step(self, x: bytes, y: bytes) -> StepResult:
        """Train on one batch."""
        result, = self.train([(x, y)])
        return result

    def infer(self, xs: Iterable[bytes]) -> Iterator[InferResult]:
        """Yield the outputs of batches, in order."""
        hello = self._link.hello()
        for frame in self._link.stream(_inferences(hello, xs)):
            _check_answer(frame.payload, 8 + hello.out_bytes, "INFER")
            yield InferResult(frame.payload[8:], int.from_bytes(frame.payload[:8], "little"))

    def tensor(self, index: int) -> Tensor:
        """Return size and kind of a tensor."""
        return Tensor.unpack(self._ask(Type.TENSOR, _words(index)))

    def read_tensor(self, index: int) -> bytes:
        """Return all bytes of a tensor."""
        size = self.tensor(index).size
        requests = (Request(Type.READ, _words(index, at, min(PIECE, size - at))) for at in range(0, size, PIECE))
        data = b"".join(frame.payload for frame in self._link.stream(requests))
        _check_answer(data, size, "READ")
        return data

    def write_tensor(self, index: int, data: bytes) -> None:
        """Set all bytes of a tensor."""
        size = self.tensor(index).size
        if len(data) != size:
            raise DataError(f"tensor {index} has {size} bytes, not {len(data)}")
        piece = max(1, min(PIECE, self._link.hello().max_payload - 8))
        requests = (Request(Type.WRITE, _words(index, at) + data[at:at + piece]) for at in range(0, size, piece))
        for _ in self._link.stream(requests):
            pass

    def reset(self) -> None:
        """Set parameters and state to their beginning; the count of steps too."""
        self._ask(Type.RESET)

    def save(self) -> int:
        """Write a checkpoint of parameters, state and the count of steps; return that count.

        Raises SessionError where the board has no store, or the store is too small or fails.
        """
        return Ack.unpack(self._ask(Type.SAVE)).steps

    def load(self) -> int:
        """Go back to the newest checkpoint; return its count of steps.

        Raises SessionError, with the model as it was, when there is none, or it is of another model.
        """
        return Ack.unpack(self._ask(Type.LOAD)).steps

    def forget(self) -> None:
        """Reset to factory state: initial parameters and state, no steps, and no checkpoint left."""
        self._ask(Type.FORGET)

    def autosave(self, steps: int) -> None:
        """Let the board write a checkpoint whenever its count of steps is a multiple of ``steps``; 0: none by itself.

        It holds until the board restarts. SessionError where the board has no store.
        """
        self._ask(Type.AUTOSAVE, _words(wire.interval(steps)))
        self.hello()  # from now on a step may take as long as a save

    def stats(self) -> Stats:
        """Return the board's counters."""
        return Stats.unpack(self._ask(Type.STATS))

    def profile(self) -> list[int]:
        """Return each kernel's summed cost, in counter units; SessionError unless built for profiling."""
        n = self._link.hello().n_kernels
        piece = PIECE // 8
        requests = (Request(Type.PROFILE, _words(at, min(piece, n - at))) for at in range(0, max(n, 1), piece))
        data = b"".join(frame.payload for frame in self._link.stream(requests))
        _check_answer(data, 8 * n, "PROFILE")
        return [int.from_bytes(data[at:at + 8], "little") for at in range(0, len(data), 8)]

    def restart(self, code: int = 0) -> None:
        """Restart the board, or end the emulator with exit status ``code``; closes the port."""
        try:
            self._ask(Type.REBOOT, _words(code))
        except BoardRestartedError:
            pass  # it did, and its answer was lost
        except BoardLostError as error:
            if not isinstance(error.__cause__, PortClosedError):
                raise
        self.close()

    def close(self) -> None:
        """Close the port."""
        self._link.close()

    def _ask(self, kind: Type, payload: bytes = b"") -> Frame:
        reply, = self._link.stream([Request(kind, payload)])
        return reply


def _steps(hello: Hello, samples: Iterable[tuple[bytes, bytes]]) -> Iterator[Request]:
    for number, (x, y) in enumerate(samples):
        _check_size(x, hello.x_bytes, f"x of batch {number}")
        _check_size(y, hello.y_bytes, f"y of batch {number}")
        yield Request(Type.STEP, hello.step_payload(x, y))


def _inferences(hello: Hello, xs: Iterable[bytes]) -> Iterator[Request]:
    for number, x in enumerate(xs):
        _check_size(x, hello.x_bytes, f"x of batch {number}")
        yield Request(Type.INFER, x)


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def _check_size(data: bytes, size: int, where: str) -> None:
    if len(data) != size:
        raise DataError(f"a batch has {len(data)} bytes, the model takes {size}", where=where)


def _check_answer(data: bytes, size: int, kind: str) -> None:
    if len(data) != size:
        raise SessionError(f"the board answers {kind} with {len(data)} bytes instead of {size}",
                           do="Flash firmware of this version")
