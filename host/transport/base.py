"""What every transport does, and the one error it raises."""

import select
import socket
import time
from typing import Protocol

from strop.errors import TransportError

PATIENCE = 5.0
"""A transport's, until somebody knows how long a step takes."""


class PortClosedError(TransportError):
    """The port cannot be opened, was closed by its peer, or takes no more bytes."""


class Transport(Protocol):
    """A pipe of bytes to one board: in order, perhaps damaged, perhaps with some missing.

    A transport knows nothing of frames. Every method raises PortClosedError when the port is or becomes unusable;
    after ``close``, ``open`` may be called again.
    """

    patience: float
    """Seconds a peer may leave bytes untaken before the port counts as dead; holds from the next ``open`` on."""

    @property
    def name(self) -> str:
        """The address, as a message to the user gives it."""

    def open(self) -> None:
        """Open the port and forget whatever had been received before."""

    def close(self) -> None:
        """Close the port; harmless when it is closed already."""

    def read(self, timeout: float) -> bytes:
        """Wait up to ``timeout`` seconds for at least one byte; return what there is, ``b""`` when nothing came."""

    def write(self, data: bytes) -> None:
        """Send all bytes, in order."""

    def reset_input(self) -> None:
        """Discard what was received and not yet read."""


class StreamSocket:
    """Reads and writes a connected stream socket; a base for transports over one."""

    patience = PATIENCE

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket: socket.socket | None = None
        self._early = bytearray()  # received while sending

    @property
    def name(self) -> str:
        """The address."""
        return self._name

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._early.clear()

    def read(self, timeout: float) -> bytes:
        """Wait for bytes and return what one call gives."""
        if self._early:
            data, self._early = bytes(self._early), bytearray()
            return data
        return self._received(timeout)

    def write(self, data: bytes) -> None:
        """Send all bytes; give up when none is taken for as long as patience lasts.

        Keeps receiving meanwhile: a board that waits for its answers to be taken takes no requests either.
        """
        rest, until = memoryview(data), time.monotonic() + self.patience
        while rest:
            sent = self._send_or_receive(rest, until - time.monotonic())
            rest = rest[sent:]
            until = time.monotonic() + self.patience if sent else until

    def _send_or_receive(self, data: memoryview, timeout: float) -> int:
        """Wait until the socket is ready, keep what it has received, and return how many bytes it took."""
        port = self._connected()
        readable, writable, _ = select.select([port], [port], [], max(timeout, 0.0))
        if not readable and not writable:
            raise PortClosedError(f"the port takes no bytes for {self.patience:g} s", where=self._name)
        if readable:
            self._early += self._received(0)
        try:
            port.settimeout(0.0)
            return port.send(data) if writable else 0
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PortClosedError(f"the port takes no bytes: {error}", where=self._name) from error

    def reset_input(self) -> None:
        """Read until nothing comes."""
        self._early.clear()
        while self._receive(0):
            pass

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise PortClosedError("the port is not open", where=self._name)
        return self._socket

    def _received(self, timeout: float) -> bytes:
        data = self._receive(timeout)
        if data == b"":
            raise PortClosedError("the other side closed the port", where=self._name)
        return data or b""

    def _receive(self, timeout: float) -> bytes | None:
        """Return bytes, ``b""`` at the stream's end, or None when nothing came."""
        port = self._connected()
        try:
            port.settimeout(max(timeout, 0.0))
            return port.recv(65536)
        except (TimeoutError, BlockingIOError):
            return None
        except OSError as error:
            raise PortClosedError(f"the port failed: {error}", where=self._name) from error
