"""The rings behind a board's UART (firmware/serial.h), on a UART that is slow, stands still, or may not interrupt."""

import ctypes
from pathlib import Path
from typing import NamedTuple

import pytest
from cbuild import build_shared
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent
FIRMWARE = HERE.parents[1] / "firmware"
WINDOW, BACKLOG, FIFO = 16, 8, 4


class State(NamedTuple):
    """Where the bytes are that were written, and what the UART's interrupt does."""

    waiting: int
    in_uart: int
    interrupts: int
    asks_for_room: int
    overruns: int


class Serial:
    """The harness serial_uart.c. period: looks at the UART until a byte has left; 0: the line stands still."""

    def __init__(self, period: int) -> None:
        sizes = (f"-DSTROP_WINDOW={WINDOW}u", f"-DSTROP_BACKLOG={BACKLOG}u")
        flags = (f"-I{FIRMWARE}", *sizes, "-Wno-unused-function")
        self.c = build_shared((HERE / "serial_uart.c",), flags=flags)
        self.c.strop_port_read.restype = ctypes.c_size_t
        self.c.serial_new(period)

    def write(self, data: bytes) -> None:
        self.c.strop_port_write(data, ctypes.c_size_t(len(data)))

    def read(self, n: int) -> bytes:
        data = ctypes.create_string_buffer(n)
        got = int(self.c.strop_port_read(data, ctypes.c_size_t(n)))
        return data.raw[:got]

    def line(self) -> bytes:
        data = ctypes.create_string_buffer(1 << 16)
        length = int(self.c.serial_line(data))
        return data.raw[:length]

    def state(self) -> State:
        words = (ctypes.c_uint32 * 5)()
        self.c.serial_state(words)
        return State(*words)


def test_a_reply_leaves_while_the_model_computes() -> None:
    serial = Serial(period=10)
    serial.write(b"twelve bytes")
    assert serial.line() == b""
    assert serial.state() == (BACKLOG, FIFO, 0, True, 0)
    serial.c.serial_compute(12 * 10)
    assert serial.line() == b"twelve bytes"
    assert serial.state().interrupts == BACKLOG
    assert not serial.state().asks_for_room


def test_a_full_ring_waits_and_drops_nothing() -> None:
    serial = Serial(period=3)
    data = bytes(range(256)) * 4
    serial.write(data)
    state = serial.state()
    assert 0 < state.waiting <= BACKLOG
    assert len(serial.line()) + state.waiting + state.in_uart == len(data)
    serial.c.serial_compute(3 * (BACKLOG + FIFO))
    assert serial.line() == data


@pytest.mark.parametrize("masked", [False, True])
def test_after_a_fault_all_is_written_and_sent_without_an_interrupt(masked: bool) -> None:
    serial = Serial(period=2)
    serial.write(b"a reply, and")
    taken = serial.state().interrupts
    serial.c.serial_mask(masked)
    serial.write(b" then a line of text from the handler")
    serial.c.serial_finish()
    assert serial.line() == b"a reply, and then a line of text from the handler"[:-FIFO]
    assert serial.state()[:2] == (0, FIFO)  # the port itself waits for what the UART holds
    assert not masked or serial.state().interrupts == taken


def test_interrupts_stay_off_where_they_were_off() -> None:
    serial = Serial(period=1)
    serial.c.serial_mask(True)
    serial.write(bytes(40))
    serial.c.serial_compute(100)
    assert serial.state().interrupts == 0


def test_a_board_does_not_sleep_on_bytes_that_no_interrupt_would_send() -> None:
    serial = Serial(period=5)
    serial.c.serial_mask(True)
    serial.write(b"a reply")
    serial.c.serial_mask(False)
    serial.c.serial_arrive(b"x", 1)
    assert serial.read(8) == b"x"
    assert serial.state().in_uart <= FIFO


def test_a_full_window_stops_the_interrupt_until_there_is_room() -> None:
    serial = Serial(period=1)
    data = bytes(range(2 * WINDOW + 5))
    serial.c.serial_arrive(data, len(data))
    taken = serial.state().interrupts
    serial.c.serial_compute(50)
    assert serial.state().interrupts == taken
    got = b""
    while len(got) < len(data):
        got += serial.read(7)
    assert got == data


@given(
    period=st.integers(1, 9),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.booleans(), st.integers(0, 12)), max_size=20),
)
def test_every_byte_arrives_in_order_whatever_comes_between(
    period: int, steps: list[tuple[int, int, bool, int]]
) -> None:
    serial = Serial(period)
    written, arrived, got = b"", b"", b""
    for size, looks, masked, incoming in steps:
        serial.c.serial_mask(masked)
        data = bytes((len(written) + i) % 251 for i in range(size))
        serial.write(data)
        written += data
        serial.c.serial_compute(looks)
        serial.c.serial_mask(False)
        data = bytes((len(arrived) + i) % 253 for i in range(incoming))
        serial.c.serial_arrive(data, len(data))
        arrived += data
        while len(got) < len(arrived):
            got += serial.read(5)
    serial.c.serial_compute(period * (BACKLOG + FIFO))
    assert (serial.line(), got) == (written, arrived)
    assert serial.state() == (0, 0, serial.state().interrupts, 0, 0)
