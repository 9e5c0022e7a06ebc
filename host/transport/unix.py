"""A board behind a unix socket: the character device of an emulator. Address: ``unix:/path/to/socket``."""

import socket
import time

from strop.host.transport.base import PortClosedError, StreamSocket, Transport

PREFIXES = ("unix:",)


class UnixSocketTransport(StreamSocket):
    """Connects to the socket at ``path``, waiting up to ``wait`` seconds for someone to listen there."""

    def __init__(self, path: str, *, wait: float = 5.0) -> None:
        super().__init__(f"unix:{path}")
        self._path, self._wait = path, wait

    def open(self) -> None:
        """Connect; an emulator may still be starting."""
        self.close()
        until = time.monotonic() + self._wait
        while True:
            port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                port.connect(self._path)
            except OSError as error:
                port.close()
                if time.monotonic() >= until or not isinstance(error, FileNotFoundError | ConnectionRefusedError):
                    raise PortClosedError(f"nobody listens: {error.strerror or error}", where=self.name) from error
                time.sleep(0.01)
            else:
                self._socket = port
                return


def open_address(address: str) -> Transport:
    """Return the transport of ``unix:/path``, not yet opened."""
    return UnixSocketTransport(address.removeprefix("unix:"))
