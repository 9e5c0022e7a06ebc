"""A line that goes wrong, and a board that listens on every kind of port. Not tests: what the tests use."""

import os
import random
import select
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from strop.host.transport.base import PortClosedError, Transport
from strop.host.transport.loopback import LoopbackTransport, Twin
from strop.host.transport.serial import SerialTransport
from strop.host.transport.unix import UnixSocketTransport

Fault = Callable[[bytes, random.Random], bytes]


def _flip_a_bit(frame: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(frame)
    damaged[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _lose_a_byte(frame: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(frame))
    return frame[:at] + frame[at + 1:]


FAULTS: dict[str, Fault] = {
    "drop": lambda *_: b"",
    "duplicate": lambda frame, _: frame + frame,
    "corrupt": _flip_a_bit,
    "lose a byte": _lose_a_byte,
    "lose the delimiter": lambda frame, _: frame[:-1],
    "cut": lambda frame, rng: frame[:rng.randrange(len(frame))],
    "invent": lambda frame, rng: rng.randbytes(rng.randrange(40)) + frame,
}
"""What may become of one frame, delimiter included. Order is kept."""


class FaultyTransport:
    """Passes frames on, each with probability ``rate`` through one of ``faults``, in both directions.

    split: hands out a few bytes at a time.  silences: at these counts of written frames, all is lost until the host
    has been silent for one read.  breaks: at these counts the port closes, once each.
    """

    def __init__(self, inner: Transport, faults: list[str], *, rate: float = 0.0, seed: int = 0, split: bool = False,
                 silences: tuple[int, ...] = (), breaks: tuple[int, ...] = ()) -> None:
        self.inner, self.name = inner, inner.name
        self._faults, self._rate, self._split = [FAULTS[name] for name in faults], rate, split
        self._silences, self._breaks = list(silences), list(breaks)
        self._rng = random.Random(seed)
        self._kept = b""
        self._half = b""
        self._deaf = False
        self.injected = self.frames = 0

    def open(self) -> None:
        self._kept = self._half = b""
        self.inner.open()

    def close(self) -> None:
        self.inner.close()

    def reset_input(self) -> None:
        self.inner.reset_input()

    def write(self, data: bytes) -> None:
        for frame in _frames(data):
            self.frames += 1
            self._happens(self._breaks, "break")
            self._deaf |= self._happens(self._silences, "silence")
            if not self._deaf:
                self.inner.write(self._harm(frame))

    def read(self, timeout: float) -> bytes:
        if not self._kept:
            data = self.inner.read(timeout)
            whole, end, self._half = (self._half + data).rpartition(b"\0")
            self._kept = b"" if self._deaf else b"".join(map(self._harm, _frames(whole + end)))
            self._deaf &= bool(data)
        n = self._rng.randint(1, 9) if self._split else len(self._kept)
        data, self._kept = self._kept[:n], self._kept[n:]
        return data

    def _happens(self, moments: list[int], what: str) -> bool:
        if not moments or self.frames < moments[0]:
            return False
        moments.pop(0)
        self.injected += 1
        if what == "break":
            self.inner.close()
            raise PortClosedError("the cable was pulled")
        return True

    def _harm(self, frame: bytes) -> bytes:
        if self._rng.random() >= self._rate:
            return frame
        self.injected += 1
        return self._rng.choice(self._faults)(frame, self._rng)


def _frames(data: bytes) -> list[bytes]:
    return [piece + b"\0" for piece in data.split(b"\0")[:-1]]


class Server:
    """A board on a port of this machine: feeds a twin what a stream brings, in a thread."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self._connected: socket.socket | None = None
        self._lock = threading.Lock()

    def listen(self, listener: socket.socket) -> None:
        listener.listen()
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def hang_up(self) -> None:
        """What a host sees when an emulator dies."""
        with self._lock:
            if self._connected:
                self._connected.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                self._connected = listener.accept()[0]
                with suppress(OSError), self._connected:
                    self._serve(self._connected)

    def _serve(self, stream: socket.socket) -> None:
        while data := stream.recv(4096):
            with self._lock:
                stream.sendall(self.twin.feed(data))


@contextmanager
def loopback(twin: Twin, folder: Path) -> Iterator[tuple[Transport, Callable[[], None]]]:  # noqa: ARG001
    port = LoopbackTransport(twin)
    yield port, port.close


@contextmanager
def unix_socket(twin: Twin, folder: Path) -> Iterator[tuple[Transport, Callable[[], None]]]:
    path = str(folder / "board.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        server = Server(twin)
        server.listen(listener)
        yield UnixSocketTransport(path), server.hang_up
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def tcp(twin: Twin, folder: Path) -> Iterator[tuple[Transport, Callable[[], None]]]:  # noqa: ARG001
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(twin)
        server.listen(listener)
        yield SerialTransport(f"socket://127.0.0.1:{listener.getsockname()[1]}"), server.hang_up
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def tty_device(twin: Twin, folder: Path) -> Iterator[tuple[Transport, Callable[[], None]]]:  # noqa: ARG001
    ours, theirs = os.openpty()
    ended, end = os.pipe()
    tty.setraw(theirs)

    def serve() -> None:
        while ended not in select.select([ours, ended], [], [])[0]:
            os.write(ours, twin.feed(os.read(ours, 4096)))
        os.close(ours)

    def unplug() -> None:
        os.write(end, b"!")
        thread.join()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield SerialTransport(os.ttyname(theirs)), unplug
    unplug()
    for handle in (theirs, ended, end):
        os.close(handle)


PORTS = {"loopback": loopback, "unix socket": unix_socket, "tcp": tcp, "tty": tty_device}
