"""A board inside this process: the twin. Address: ``twin:/path/to/library``."""

import ctypes
import shutil
import tempfile
import time
from mmap import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from strop.errors import DataError, SessionError
from strop.host import wire
from strop.host.transport.base import PATIENCE, PortClosedError, Transport

PREFIXES = ("twin:",)

_SINK = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t)


def _load(library: Path) -> ctypes.CDLL:
    """Load a private copy: the dynamic linker gives the same file the same variables, and each twin needs its own."""
    with tempfile.TemporaryDirectory(prefix="strop-twin-") as folder:
        return ctypes.CDLL(str(shutil.copy(library, folder)))


class Twin:
    """One emulated board in a shared library (runtime/twin.c and a generated model), freshly switched on.

    Bytes in and out are batches as the model takes them: ``hello.x_bytes``, ``hello.y_bytes`` and ``hello.out_bytes``
    each. The calls beside ``feed`` pass the frames by; steps they train count in the session.

    flash: writable memory for checkpoints, which the twin goes on from at every power on; None: it has no store.
    sector, unit: what one erase clears, and what is written at a time, in bytes.
    """

    def __init__(
        self, library: Path | str, flash: bytearray | mmap | None = None, *, sector: int = 4096, unit: int = 4
    ) -> None:
        self._library = _load(Path(library))
        if flash is not None:
            self._flash = (ctypes.c_uint8 * len(flash)).from_buffer(flash)
            sizes = (len(self._flash), sector, unit)
            self._library.strop_twin_store(self._flash, *map(ctypes.c_uint32, sizes))
        self._received = bytearray()
        self._sink = _SINK(lambda data, n: self._received.extend(ctypes.string_at(data, n)))
        self._library.strop_twin_train.restype = self._library.strop_twin_steps.restype = ctypes.c_uint32
        self.power_on()
        self.hello = self._ask_hello()
        self.power_on()

    def power_on(self) -> bytes:
        """Start afresh: its checkpoint or initial parameters, a session that remembers nothing; return what it says."""
        self._received.clear()
        self._check(self._library.strop_twin_open(self._sink))
        return self._take()

    def feed(self, data: bytes) -> bytes:
        """Give the session bytes from the wire; return what it sends."""
        self._library.strop_twin_feed(bytes(data), ctypes.c_size_t(len(data)))
        return self._take()

    def log(self, line: str) -> bytes:
        """Let the board send a line of text; return the frame."""
        self._library.strop_twin_log(line.encode())
        return self._take()

    def init(self) -> None:
        """Set parameters, state and the count of steps to the beginning."""
        self._library.strop_twin_init()

    @property
    def steps(self) -> int:
        """Steps done since the parameters were initial."""
        return int(self._library.strop_twin_steps())

    def save(self) -> None:
        """Write a checkpoint."""
        self._check(self._library.strop_twin_save())

    def load(self) -> None:
        """Go back to the newest checkpoint."""
        self._check(self._library.strop_twin_load())

    def forget(self) -> None:
        """Go to the beginning, without any checkpoint left."""
        self._check(self._library.strop_twin_forget())

    def autosave(self, steps: int) -> None:
        """Write a checkpoint every so many steps; 0: none by itself."""
        self._check(self._library.strop_twin_autosave(ctypes.c_uint32(wire.interval(steps))))

    def stats(self) -> wire.Stats:
        """What it has counted."""
        reply, = wire.Decoder().feed(self.feed(wire.encode(wire.Frame(wire.Type.STATS))))
        return wire.Stats.unpack(reply)

    def train(self, xs: bytes, ys: bytes) -> npt.NDArray[np.float32]:
        """Train on all batches in sequence; return their losses."""
        n = self._batches(xs, self.hello.x_bytes, "x")
        if self._batches(ys, self.hello.y_bytes, "y") != n:
            raise DataError(f"there are {n} batches of x, and not as many of y")
        losses = np.empty(n, np.float32)
        done = self._library.strop_twin_train(ctypes.c_uint32(n), xs, ys, ctypes.c_void_p(losses.ctypes.data))
        if done != n:
            raise DataError("a label is not a class of the model", where=f"batch {done}")
        return losses

    def infer(self, xs: bytes) -> bytes:
        """Return the outputs of all batches."""
        n = self._batches(xs, self.hello.x_bytes, "x")
        outs = ctypes.create_string_buffer(n * self.hello.out_bytes)
        self._library.strop_twin_infer(ctypes.c_uint32(n), xs, outs)
        return outs.raw

    def read(self, index: int, offset: int, n: int) -> bytes:
        """Return n bytes of a tensor."""
        data = ctypes.create_string_buffer(n)
        self._check(self._library.strop_twin_read(*map(ctypes.c_uint32, (index, offset)), data, ctypes.c_uint32(n)))
        return data.raw

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Put bytes into a tensor."""
        self._check(self._library.strop_twin_write(*map(ctypes.c_uint32, (index, offset)), bytes(data),
                                                   ctypes.c_uint32(len(data))))

    def _take(self) -> bytes:
        data = bytes(self._received)
        self._received.clear()
        return data

    def _ask_hello(self) -> wire.Hello:
        reply, = wire.Decoder().feed(self.feed(wire.encode(wire.Frame(wire.Type.HELLO))))
        return wire.Hello.unpack(reply)

    @staticmethod
    def _batches(data: bytes, size: int, name: str) -> int:
        if len(data) % size:
            raise DataError(f"{name} has {len(data)} bytes, which is no multiple of a batch's {size}")
        return len(data) // size

    @staticmethod
    def _check(status: int) -> None:
        if status != wire.Status.OK:
            raise SessionError(wire.sentence(status), where="the twin")


class LoopbackTransport:
    """The twin's frames. Closing the port leaves the twin as it is, like a cable pulled from a board."""

    def __init__(self, twin: Twin, name: str = "twin") -> None:
        self._twin, self._name = twin, name
        self._received = bytearray()
        self.patience = PATIENCE  # of no use here: the twin takes all bytes at once
        self._open = False

    @property
    def name(self) -> str:
        """The address."""
        return self._name

    def open(self) -> None:
        """Start with nothing received."""
        self._received.clear()
        self._open = True

    def close(self) -> None:
        """Forget what was received."""
        self._open = False

    def read(self, timeout: float) -> bytes:
        """Return what the twin has answered."""
        self._must_be_open()
        if not self._received:
            time.sleep(max(timeout, 0.0))
        data = bytes(self._received)
        self._received.clear()
        return data

    def write(self, data: bytes) -> None:
        """Let the twin take and answer the bytes."""
        self._must_be_open()
        self._received += self._twin.feed(data)

    def reset_input(self) -> None:
        """Discard the answers."""
        self._received.clear()

    def _must_be_open(self) -> None:
        if not self._open:
            raise PortClosedError("the port is not open", where=self._name)


def open_address(address: str) -> Transport:
    """Return a transport to a fresh twin from the library at ``twin:path``, not yet opened."""
    return LoopbackTransport(Twin(address.removeprefix("twin:")), address)


