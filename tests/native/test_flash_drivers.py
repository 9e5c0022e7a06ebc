"""Flash drivers that no emulator can run, on chips that are played here, register by register.

Each chip checks what its manual asks of a driver (order, keys, sizes, nobody reading busy flash), and can be told to
fail. The driver is the firmware's own source, with the macros of its board's description.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cbuild import build_shared

from strop.targets.board import Board, Store, load_board

HERE = Path(__file__).parent / "registers"
FIRMWARE = HERE.parents[2] / "firmware"
SHOW = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)
WRITTEN = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32)
MASKED = ctypes.CFUNCTYPE(None, ctypes.c_int)
ROM = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint32] * 4, ctypes.c_void_p)
OLD = 0x5A
"""What a chip holds before a test."""


class Chip:
    """Flash of a board: its memory, whether interrupts are off, and the first thing that a driver did wrong."""

    driver: str
    defines: tuple[str, ...] = ()

    def __init__(self, board: Board) -> None:
        assert board.store
        self.store: Store = board.store
        self.masked = self.protected = False
        self.wrongs: list[str] = []
        flags = [*(f"-D{define}" for define in board.defines), *(f"-D{define}" for define in self.defines)]
        flags += [f'-DDRIVER="boards/{self.driver}"', f"-I{HERE}", f"-I{FIRMWARE}"]
        self.c = build_shared((HERE / "flash_driver.c",), flags=(*flags, "-Wno-unused-function"))
        self.calls: tuple[Any, ...] = (SHOW(self.show), WRITTEN(self.written), MASKED(self.mask), ROM(self.rom))
        self.c.driver_new.restype = ctypes.c_void_p
        place = int(self.c.driver_new(*self.calls))
        self.memory: Any = (ctypes.c_uint8 * self.store.length).from_address(place)
        ctypes.memset(self.memory, OLD, self.store.length)

    def expect(self, holds: bool, what: str) -> None:
        """An exception would get lost in C."""
        if not holds:
            self.wrongs.append(what)

    def mask(self, is_masked: int) -> None:
        self.masked = bool(is_masked)

    def show(self, address: int) -> int:
        self.expect(False, f"a look at {address:#x}")
        return 0

    def written(self, address: int, value: int) -> None:
        self.expect(False, f"{value:#x} to {address:#x}")

    def rom(self, function: int, *_: Any) -> int:
        self.expect(False, f"function {function:#x} of the ROM")
        return 1

    def clear(self, offset: int, n: int) -> None:
        """Of the chip's own work: n bytes are erased."""
        self.expect(0 <= offset <= offset + n <= self.store.length, f"erases {offset:#x}")
        if not self.protected:
            self.memory[offset : offset + n] = [0xFF] * n

    def program(self, offset: int, data: bytes) -> None:
        """Of the chip's own work: bits become 0, none becomes 1."""
        self.expect(0 <= offset <= offset + len(data) <= self.store.length, f"programs {offset:#x}")
        if not self.protected:
            self.memory[offset : offset + len(data)] = [
                a & b for a, b in zip(self.memory[offset : offset + len(data)], data, strict=True)
            ]

    def erase(self, offset: int) -> int:
        return self._checked(self.c.driver_erase, ctypes.c_uint32(offset))

    def write(self, offset: int, data: bytes) -> int:
        return self._checked(self.c.driver_write, ctypes.c_uint32(offset), data, ctypes.c_uint32(len(data)))

    def read(self, offset: int, n: int) -> tuple[int, bytes]:
        data = ctypes.create_string_buffer(n)
        status = self._checked(self.c.driver_read, ctypes.c_uint32(offset), data, ctypes.c_uint32(n))
        return status, data.raw

    def _checked(self, call: Callable[..., int], *args: Any) -> int:
        status = int(call(*args))
        assert not self.wrongs
        assert not self.masked
        return status


class Fe310(Chip):
    """A 25-series chip behind the SPI controller of an FE310 (manual v3p2, SPI)."""

    driver = "fe310/flash.h"
    CHIP_SELECT, FORMAT, TRANSMIT, RECEIVED, MAPPED = (0x10014000 + at for at in (0x18, 0x40, 0x48, 0x4C, 0x60))
    NOT_NOW, NOISE, AS_LEFT = 1 << 31, 0x00ABC000, 0x80008

    def __init__(self, board: Board) -> None:
        self.registers = {self.CHIP_SELECT: 0, self.FORMAT: self.AS_LEFT, self.MAPPED: 1}
        self.frame: list[int] = []
        self.answers: list[int] = []
        self.enabled, self.busy = False, 0
        self.full, self.late = 0, 0
        super().__init__(board)

    def show(self, address: int) -> int:
        if address not in (self.TRANSMIT, self.RECEIVED):
            return self.registers[address]
        if address == self.TRANSMIT:  # full at the first look behind each byte
            self.full = max(0, self.full - 1)
            return self.NOISE | (self.NOT_NOW if self.full else 0)
        self.late = not self.late
        return self.NOT_NOW if self.late or not self.answers else self.answers.pop(0)

    def written(self, address: int, value: int) -> None:
        self.expect(self.masked, "the handler of an interrupt lies in flash")
        if address == self.TRANSMIT:
            self.expect(value < 256 and not self.full, "a byte, where there is room")
            self.full = 2
            self.expect(
                (self.registers[self.MAPPED], self.registers[self.FORMAT]) == (0, 8 << 16), "one line, unmapped"
            )
            self.exchange(value)
            return
        self.registers[address] = value
        if address == self.CHIP_SELECT and value == 0:
            self.deselect()
        self.expect(address != self.MAPPED or value == 0 or self.busy == 0, "mapped while it is busy")

    def exchange(self, byte: int) -> None:
        self.frame.append(byte)
        is_status = self.frame[0] == 0x05 and len(self.frame) > 1
        self.answers.append(int(self.busy > 0) if is_status else 0xFF)
        self.busy -= is_status and self.busy > 0
        if self.registers[self.CHIP_SELECT] == 0:
            self.deselect()

    def deselect(self) -> None:
        frame, self.frame = self.frame, []
        if frame == [0x06]:
            self.enabled = True
        elif frame and frame[0] in (0x20, 0x02):
            self.expect(self.enabled and self.busy == 0, "a change before it was enabled")
            self.enabled, self.busy = False, 4
            at = int.from_bytes(frame[1:4], "big") - (self.store.origin - 0x20000000)
            if frame[0] == 0x20:
                self.expect(len(frame) == 4, "an address of three bytes")
                self.clear(at & ~0xFFF, 4096)
            page = at & ~0xFF
            for i, value in enumerate(frame[4:]):
                self.program(page + (at + i) % 256, bytes([value]))


class Stm32H7(Chip):
    """Bank 2 of an STM32H743's flash (RM0433, embedded flash memory)."""

    driver = "stm32/h7_flash.h"
    KEY, CONTROL, STATUS, CLEAR = (0x52002100 + at for at in (0x04, 0x0C, 0x10, 0x14))
    LOCK, PG, SER, START, DBECCERR = 1, 2, 4, 0x80, 1 << 26

    def __init__(self, board: Board) -> None:
        self.control, self.status, self.busy = self.LOCK, 0, 0
        self.keys: list[int] = []
        self.faults, self.broken = True, False
        super().__init__(board)
        self.before = bytes(self.memory)

    def show(self, address: int) -> int:
        self.notice_programming()
        if address == self.STATUS:
            self.busy = max(0, self.busy - 1)
            return self.status | (5 if self.busy else 0)
        return self.control if address == self.CONTROL else 0

    def notice_programming(self) -> None:
        """The driver writes to the memory itself, a flash word at a time."""
        now = bytes(self.memory)
        if now == self.before:
            return
        changed = [i for i, (a, b) in enumerate(zip(self.before, now, strict=True)) if a != b]
        self.expect(changed[0] // 32 == changed[-1] // 32, "more than a flash word at a time")
        self.expect(self.control == self.PG | 0x30 and self.busy == 0, "not ready to program")
        if self.protected:
            self.memory[:] = self.before
            self.status |= 1 << 17
        self.busy, self.before = 4, bytes(self.memory)

    def written(self, address: int, value: int) -> None:
        if address == 0:
            self.faults = bool(value)
            self.status |= self.DBECCERR if value and self.broken else 0
        elif address == self.KEY:
            self.keys = [*self.keys[-1:], value]
        elif address == self.CLEAR:
            self.status &= ~value
        else:
            self.to_control(value)

    def to_control(self, value: int) -> None:
        self.expect(self.busy == 0, "a command while it is busy")
        if self.control & self.LOCK:
            self.expect(self.keys == [0x45670123, 0xCDEF89AB], "the keys")
        self.control, self.keys = value, []
        if value & self.START:
            self.expect(value & ~0x700 == self.SER | self.START | 0x30, "erases a sector")
            first = (self.store.origin - 0x08100000) // 0x20000
            self.clear(((value >> 8 & 7) - first) * 0x20000, 0x20000)
            self.status |= 1 << 17 if self.protected else 0
            self.busy, self.before = 6, bytes(self.memory)


class Rp2350(Chip):
    """flash_op of an RP2350's boot ROM (datasheet, bootrom APIs)."""

    driver, defines = "rp2350/flash.h", ("RP2350",)

    def rom(self, function: int, *args: Any) -> int:
        if function == 1:
            self.expect(args[:2] == (ord("F") | ord("O") << 8, 4), "looks up a secure function of Arm")
            return 0
        self.expect(self.masked, "the handler of an interrupt lies in flash")
        flags, address, n, data = args
        self.expect(flags & ~0x10000 == 0x101, "secure, by the mapped address")
        unit = 256 if flags & 0x10000 else 4096
        self.expect(address % unit == n % unit == 0, "whole pages or sectors")
        if flags & 0x10000:
            self.program(address - self.store.origin, ctypes.string_at(data, n))
        else:
            self.clear(address - self.store.origin, n)
        return 0  # a chip that is protected says nothing


class Esp32C3(Chip):
    """The ESP32-C3's ROM (ESP-IDF, esp32c3/rom/spi_flash.h), which counts from the chip's first byte."""

    driver, defines = "esp32c3/flash.h", ("ESP32C3",)
    is_described = is_open = False

    def rom(self, function: int, a: int, b: int, c: int, data: int) -> int:
        self.expect(self.masked, "the handler of an interrupt lies in flash")
        first = self.store.origin - 0x42000000
        if function == 0x40000134:
            self.expect((a, b, c) == (4 << 20, 64 << 10, 4 << 10), "the chip's size")
            self.is_described = True
        elif function == 0x40000140:
            self.is_open = self.is_described
        elif function == 0x40000128:
            self.expect(self.is_open, "unlocked")
            self.clear(a * 4096 - first, 4096)
        else:
            self.expect(a % 4 == b % 4 == data % 4 == 0, "words")
            if function == 0x4000012C:
                self.program(a - first, ctypes.string_at(data, b))
            else:
                ctypes.memmove(data, bytes(self.memory[a - first : a - first + b]), b)
        return int(self.protected and function != 0x40000130)


BOARDS = {"hifive1": Fe310, "nucleo-h743zi": Stm32H7, "pico2-arm": Rp2350, "esp32-c3": Esp32C3}


@pytest.fixture(params=BOARDS)
def chip(request: pytest.FixtureRequest) -> Chip:
    return BOARDS[request.param](load_board(request.param))


def pattern(n: int) -> bytes:
    return bytes((31 * i + 7) % 251 for i in range(n))


def test_an_erase_clears_its_sector_and_no_other(chip: Chip) -> None:
    sector, n = chip.store.sector, chip.store.length
    for at in (0, n - sector, sector):
        assert chip.erase(at) == 0
    wanted = bytearray([OLD]) * n
    for at in (0, n - sector, sector):
        wanted[at : at + sector] = b"\xff" * sector
    assert bytes(chip.memory) == wanted


def test_what_is_written_is_there_and_nothing_else(chip: Chip) -> None:
    unit, sector = chip.store.write, chip.store.sector
    chip.erase(sector)
    wanted = bytearray(b"\xff" * sector)
    page = 256 // unit  # units of one; the second run crosses its end, where there are several
    for at, n in ((0, unit), ((page - 1) * unit or unit, 3 * unit), (sector - 2 * unit, 2 * unit)):
        assert chip.write(sector + at, pattern(n)) == 0
        wanted[at : at + n] = pattern(n)
    assert bytes(chip.memory[sector : 2 * sector]) == wanted
    assert bytes(chip.memory[:sector]) == bytes([OLD]) * sector


def test_any_bytes_are_read(chip: Chip) -> None:
    chip.erase(0)
    unit = chip.store.write
    data = pattern(4 * unit * (256 // unit))
    assert chip.write(0, data) == 0
    for at, n in ((0, len(data)), (1, 1), (3, 130), (6, 2), (64, 64), (61, 5), (len(data) - 1, 1)):
        assert chip.read(at, n) == (0, data[at : at + n])


def test_a_chip_that_does_nothing_is_a_failure(chip: Chip) -> None:
    chip.erase(0)
    chip.protected = True
    assert chip.erase(chip.store.sector) != 0
    assert chip.write(0, bytes(chip.store.write)) != 0


def test_a_word_that_lost_power_is_a_failure_and_no_fault() -> None:
    """RM0433, flash error management: reading it is a bus error, and a flag tells."""
    chip = Stm32H7(load_board("nucleo-h743zi"))
    assert chip.read(0, 64) == (0, bytes([OLD]) * 64)
    chip.broken = True
    assert chip.read(0, 64)[0] != 0
    assert chip.faults
    chip.broken = False
    assert chip.read(0, 64)[0] == 0
