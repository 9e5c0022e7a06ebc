"""QEMU: starts an emulated board with its serial line on a unix socket in a private folder, or on a pseudo-terminal."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import Self

from strop.errors import FlashError
from strop.host.flash.base import Ability, Commands
from strop.host.instances import Instance
from strop.targets.board import Board, Emulator

START_SECONDS = 10.0
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None)


def claims(board: Board) -> bool:
    """Whether the board's description names an emulator."""
    return board.emulator is not None


def open_runner(board: Board, _instance: Instance | None = None) -> "QemuRunner":
    """Return the runner of an emulated board, of which there is no instance on the desk."""
    if board.emulator is None:
        raise FlashError(f"board {board.name!r} has no emulator")
    return QemuRunner(board.emulator)


class QemuRunner:
    """Starts programs as the board's description says."""

    name = "qemu"
    abilities = frozenset({Ability.DRY_RUN})

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def command(self, elf: Path, socket: Path | None = None) -> list[str]:
        """Return the command; without a socket, the serial line is the terminal."""
        machine = self._emulator
        cpu = ("-cpu", machine.cpu) if machine.cpu else ()
        line = "pty,id=uart" if machine.serial == "pty" else f"socket,id=uart,path={socket},server=on,wait=off"
        serial = f"chardev:uart -chardev {line}" if socket else "mon:stdio"
        args = (word.replace("{elf}", str(elf).replace(",", ",,")) for word in machine.args)
        return [
            machine.binary, "-M", machine.machine, *cpu, *args, "-kernel", str(elf),
            "-nodefaults", "-display", "none", "-no-reboot", "-serial", *serial.split(" "),
        ]  # fmt: skip

    def commands(self, elf: Path, *, erase: bool = False) -> Commands:
        """Return the one command; each start begins with a flash that holds the program only."""
        return [self.command(elf)]

    def reset(self) -> None:
        """Refuse: an emulator runs no longer than what started it."""
        raise FlashError("qemu restarts no board that runs already", do="Use --port, or start it again")

    def start(self, elf: Path, *, erase: bool = False) -> "Qemu":
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
        self._endpoint = self._wait_for_line()

    @property
    def endpoint(self) -> str:
        """Address of the serial line."""
        return self._endpoint

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
            said = " ".join(self._said().split())
            raise FlashError(f"QEMU ended with status {status}: {said or 'it printed nothing'}")

    def close(self) -> None:
        """End QEMU and remove the socket."""
        self._end()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _said(self) -> str:
        """What QEMU has printed so far."""
        return self._errors.read_text(encoding="utf-8", errors="replace") if self._errors.exists() else ""

    def _line(self) -> str:
        """Address of the serial line once there is one. A socket exists when QEMU listens to it: no need to wait."""
        terminal = re.search(r"redirected to (/dev/\S+) ", self._said())
        return f"unix:{self._socket}" if self._socket.exists() else terminal[1] if terminal else ""

    def _wait_for_line(self) -> str:
        """Return the address of the serial line as soon as a client may connect."""
        until = time.monotonic() + START_SECONDS
        while not (line := self._line()):
            try:
                self.check()
                if time.monotonic() > until:
                    raise FlashError(f"QEMU did not open its serial line within {START_SECONDS:g} s")
            except FlashError:
                self.close()
                raise
            time.sleep(0.005)
        return line


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
