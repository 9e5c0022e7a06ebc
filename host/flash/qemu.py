"""QEMU: starts an emulated board with its serial line on a unix socket in a private folder."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import Self

from strop.errors import FlashError
from strop.host.flash.base import Ability
from strop.targets.board import Board, Emulator

START_SECONDS = 10.0
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None)


def claims(board: Board) -> bool:
    """Whether the board's description names an emulator."""
    return board.emulator is not None


def open_runner(board: Board) -> "QemuRunner":
    """Return the runner of an emulated board."""
    if board.emulator is None:
        raise FlashError(f"board {board.name!r} has no emulator")
    return QemuRunner(board.emulator)


class QemuRunner:
    """Starts programs as the board's description says."""

    abilities = frozenset({Ability.DRY_RUN})

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def command(self, elf: Path, socket: Path | None = None) -> list[str]:
        """Return the command; without a socket, the serial line is the terminal."""
        machine = self._emulator
        serial = f"chardev:uart -chardev socket,id=uart,path={socket},server=on,wait=off" if socket else "mon:stdio"
        return [
            machine.binary, "-M", machine.machine, "-cpu", machine.cpu, *machine.args, "-kernel", str(elf),
            "-nodefaults", "-display", "none", "-no-reboot", "-serial", *serial.split(" "),
        ]  # fmt: skip

    def start(self, elf: Path) -> "Qemu":
        """Start QEMU and wait until its serial line can be opened."""
        if shutil.which(self._emulator.binary) is None:
            package = self._emulator.package
            raise FlashError(f"{self._emulator.binary} is not installed", do=f"sudo apt-get install {package}")
        if not elf.is_file():
            raise FlashError("there is no program to start", where=str(elf), do="Build it first")
        folder = Path(tempfile.mkdtemp(prefix="strop-"))
        return Qemu(self.command(elf, folder / "uart"), folder)


class Qemu:
    """A running emulator. It ends with ``close``, with this object, with this process, and with the starting thread."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._socket, self._errors = folder / "uart", folder / "stderr"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                process_group=0,  # Ctrl-C in the terminal is ours to handle
                preexec_fn=_prepare,  # noqa: PLW1509
            )  # fmt: skip
        self._end = weakref.finalize(self, _end, self._process, folder)
        self._wait_for_socket()

    @property
    def endpoint(self) -> str:
        """Address of the serial line."""
        return f"unix:{self._socket}"

    @property
    def pid(self) -> int | None:
        """QEMU's process id."""
        return self._process.pid

    def wait(self, timeout: float) -> int:
        """Return QEMU's exit status once the program has ended; raise FlashError when it has not within ``timeout``."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise FlashError(f"the program still runs after {timeout:g} s") from error

    def check(self) -> None:
        """Raise FlashError with what QEMU printed if it has ended."""
        status = self._process.poll()
        if status is not None:
            said = self._errors.read_text(encoding="utf-8", errors="replace") if self._errors.exists() else ""
            raise FlashError(f"QEMU ended with status {status}: {' '.join(said.split()) or 'it printed nothing'}")

    def close(self) -> None:
        """End QEMU and remove the socket."""
        self._end()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _wait_for_socket(self) -> None:
        """Return when the socket exists. QEMU creates it only when listening to it, so a client may connect at once."""
        until = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            try:
                self.check()
                if time.monotonic() > until:
                    raise FlashError(f"QEMU did not open its serial line within {START_SECONDS:g} s")
            except FlashError:
                self.close()
                raise
            time.sleep(0.005)


def _prepare() -> None:
    """Run in the child before QEMU: end it with its parent, and keep its threads on one CPU.

    The core's thread and the one that moves the serial line's bytes only ever take turns, up to once a byte; waking
    each other on another CPU costs more than the work does.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[os.getpid() % len(cpus)]})


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
