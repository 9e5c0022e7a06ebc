"""A board on a serial port. Address: a device such as ``/dev/ttyACM0``, or a pyserial URL such as ``socket://h:p``.

A device may be followed by its rate: ``/dev/ttyUSB0@921600``; without one it is 115200 baud.
"""

import os

import serial

from strop.host.transport.base import PATIENCE, PortClosedError, Transport

PREFIXES = ("/dev/", "COM", "socket://", "rfc2217://", "loop://", "spy://")
CHUNK = 65536


class SerialTransport:
    """A port that pyserial opens, locked against other programs where the system can."""

    patience = PATIENCE

    def __init__(self, port: str, *, baud: int = 115200) -> None:
        self._url, self._baud = port, baud
        self._port: serial.Serial | None = None

    @property
    def name(self) -> str:
        """The device or URL."""
        return self._url

    def open(self) -> None:
        """Open the port; pyserial discards the bytes that waited in it."""
        self.close()
        try:
            port = serial.serial_for_url(self._url, self._baud, do_not_open=True)
            port.write_timeout = self.patience
            if not self._url.startswith("socket:"):
                port.exclusive = True
            port.open()
            self._port = port
        except (serial.SerialException, OSError, ValueError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise PortClosedError(f"the port cannot be opened: {reason}", where=self._url,
                                  do="Check the cable, the name, your right to use it, and that no other program "
                                     "has it open") from error

    def close(self) -> None:
        """Close the port."""
        if self._port is not None:
            self._port.close()
        self._port = None

    def read(self, timeout: float) -> bytes:
        """Wait for one byte, then take what else is there: ``in_waiting`` says 0 or 1 on a socket, whatever waits."""
        port = self._opened()
        try:
            port.timeout = max(timeout, 0.0)
            first: bytes = port.read(1)
        except (serial.SerialException, OSError) as error:
            raise PortClosedError(f"the port failed: {error}", where=self._url) from error
        return first and first + self._rest(port)

    def write(self, data: bytes) -> None:
        """Send all bytes, as long as patience lasts."""
        try:
            self._opened().write(data)
        except (serial.SerialException, OSError) as error:
            raise PortClosedError(f"the port takes no bytes: {error}", where=self._url) from error

    def reset_input(self) -> None:
        """Discard what pyserial and the system hold."""
        try:
            self._opened().reset_input_buffer()
        except (serial.SerialException, OSError) as error:
            raise PortClosedError(f"the port failed: {error}", where=self._url) from error

    def _opened(self) -> serial.Serial:
        if self._port is None:
            raise PortClosedError("the port is not open", where=self._url)
        return self._port

    @staticmethod
    def _rest(port: serial.Serial) -> bytes:
        """What can be read at once; a failure here comes again at the next read, without a byte lost."""
        try:
            port.timeout = 0
            rest: bytes = port.read(CHUNK)
        except (serial.SerialException, OSError):
            return b""
        return rest


def open_address(address: str) -> Transport:
    """Return the transport of a device or pyserial URL, not yet opened."""
    device, _, rate = address.rpartition("@")
    if _has_rate(device) and rate.isdecimal() and int(rate):
        return SerialTransport(device, baud=int(rate))
    return SerialTransport(address)


def at_baud(address: str, baud: int) -> str:
    """An address with a rate, if it is a device that has none yet and the rate is not 0."""
    return f"{address}@{baud}" if baud and _has_rate(address) and "@" not in address else address


def _has_rate(address: str) -> bool:
    return address.startswith(("/dev/", "COM"))
