"""What every transport must do, and what training must survive on it: the conformance suite."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_board import HASH, fresh_twin, sample, samples
from faulty import FAULTS, PORTS, FaultyTransport

from strop.host.session import BoardLostError, Session
from strop.host.transport import PortClosedError, Transport
from strop.host.transport.loopback import Twin
from strop.host.transport.serial import SerialTransport
from strop.host.transport.unix import UnixSocketTransport
from strop.host.wire import Frame, Type, encode

N = 200
Port = tuple[Transport, Callable[[], None], Twin]


@pytest.fixture(params=PORTS)
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Port]:
    """A transport to a board, what cuts it off, and the board."""
    twin = fresh_twin()
    with PORTS[request.param](twin, tmp_path) as (transport, cut):
        yield transport, cut, twin
        transport.close()


def clean_run() -> tuple[list[float], bytes]:
    twin = fresh_twin()
    losses = twin.train(b"".join(x for x, _ in samples(N)), b"".join(y for _, y in samples(N)))
    return losses.tolist(), twin.read(0, 0, 1200)


def assert_trains_exactly(session: Session) -> None:
    """The same losses, parameters and outputs as without frames; also through a pull, a push and a reset."""
    losses, weights = clean_run()
    results = list(session.train(samples(N)))
    assert [r.loss for r in results] == losses
    assert [r.index for r in results] == list(range(N))
    assert session.read_tensor(0) == weights
    session.reset()
    assert session.read_tensor(0) == bytes(1200)
    session.write_tensor(0, weights)
    assert session.read_tensor(0) == weights
    assert [r.output[:4] for r in session.infer([bytes(10)] * 30)] == [weights[:4]] * 30


def test_training_is_exact(port: Port) -> None:
    with Session(port[0], expect_hash=HASH) as session:
        assert_trains_exactly(session)
        assert session.stats().frames_bad == 0


@pytest.mark.parametrize("seed", range(2))
def test_training_is_exact_on_a_bad_line(port: Port, seed: int) -> None:
    faulty = FaultyTransport(port[0], list(FAULTS), rate=0.05, seed=seed, split=True, silences=(50,))
    with Session(faulty, timeout=4) as session:
        assert_trains_exactly(session)
    assert faulty.injected > 20


def test_training_is_exact_over_reconnects(port: Port) -> None:
    faulty = FaultyTransport(port[0], [], breaks=(1, 40, 41, 120, 230))
    with Session(faulty, timeout=4, reconnects=5) as session:
        assert_trains_exactly(session)
    assert faulty.injected == 5


def test_a_silent_read_gives_nothing_in_time(port: Port) -> None:
    port[0].open()
    began = time.monotonic()
    assert port[0].read(0.05) == b""
    assert 0.04 < time.monotonic() - began < 0.5


def test_a_read_gives_all_that_is_there(port: Port) -> None:
    hello = encode(Frame(Type.HELLO))
    port[0].open()
    port[0].write(hello)
    time.sleep(0.05)
    assert len(port[0].read(0.1)) == len(fresh_twin().feed(hello))


def test_opening_and_resetting_forget_what_came(port: Port) -> None:
    transport = port[0]
    transport.open()
    for forget in (transport.reset_input, transport.open):
        transport.write(encode(Frame(Type.HELLO)))
        time.sleep(0.05)
        forget()
        assert transport.read(0.02) == b""


def test_a_closed_port_says_so(port: Port) -> None:
    for call in (lambda: port[0].read(0.01), lambda: port[0].write(b"\0")):
        with pytest.raises(PortClosedError, match="not open"):
            call()


def test_a_board_that_dies_ends_the_run_at_once(port: Port) -> None:
    transport, cut, _ = port
    session = Session(transport, timeout=30)
    results = session.train(sample(i) for i in range(10**9))
    done = [next(results).index for _ in range(20)]
    began = time.monotonic()
    cut()
    with pytest.raises(BoardLostError) as lost:
        done.extend(result.index for result in results)
    assert time.monotonic() - began < 2
    assert lost.value.step == len(done)
    assert done == list(range(len(done)))


def test_a_host_that_restarts_goes_on_where_the_board_is(port: Port) -> None:
    transport = port[0]
    first = Session(transport)
    results = first.train(samples(N))
    for _ in range(60):
        next(results)
    results.close()
    first.close()
    with Session(transport) as second:
        done = second.hello().steps
        assert 60 <= done <= 60 + second.hello().replies
        list(second.train(samples(N - done, start=done)))
        assert second.read_tensor(0) == clean_run()[1]


def test_ports_that_do_not_exist(tmp_path: Path) -> None:
    for transport in (UnixSocketTransport(str(tmp_path / "none"), wait=0.1), SerialTransport(str(tmp_path / "none")),
                      SerialTransport("socket://127.0.0.1:1"), SerialTransport("socket://nonsense")):
        with pytest.raises(PortClosedError):
            transport.open()


def test_a_socket_that_appears_late_is_found(tmp_path: Path) -> None:
    path = tmp_path / "board.sock"
    with pytest.raises(PortClosedError, match="nobody listens"):
        UnixSocketTransport(str(path), wait=0.05).open()
    with socket.socket(socket.AF_UNIX) as board:
        def start() -> None:
            board.bind(str(path))
            time.sleep(0.05)
            board.listen()

        starting = threading.Timer(0.1, start)
        starting.start()
        UnixSocketTransport(str(path)).open()
        starting.join()


@pytest.mark.parametrize(("timeout", "lives"), [(0.2, False), (5.0, True)])
def test_a_board_may_take_no_bytes_as_long_as_a_step_may_take(tmp_path: Path, timeout: float, lives: bool) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "uart"))
    listening.listen()
    transport = UnixSocketTransport(str(tmp_path / "uart"))
    Session(transport, timeout=timeout)
    transport.open()
    board, _ = listening.accept()

    def compute_for_a_while() -> None:
        time.sleep(0.6)
        while board.recv(1 << 16):
            pass

    computing = threading.Thread(target=compute_for_a_while)
    computing.start()
    try:
        if lives:
            transport.write(bytes(1 << 21))
        else:
            with pytest.raises(PortClosedError, match=r"takes no bytes for 0.2 s"):
                transport.write(bytes(1 << 21))
    finally:
        transport.close()
        computing.join()
        board.close()
        listening.close()
