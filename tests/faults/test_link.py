"""Each fault on its own, each way a board can be lost, and what a user is told."""

import itertools
import struct
import time
from collections import deque
from collections.abc import Iterator

import pytest
from fake_board import HASH, fresh_twin, sample, samples
from faulty import FAULTS, FaultyTransport

from strop.errors import DataError, SessionError
from strop.host import wire
from strop.host.session import BoardLostError, Session, StepResult
from strop.host.transport import PortClosedError
from strop.host.transport.loopback import LoopbackTransport, Twin
from strop.host.wire import REPLY, Frame, Status, Type

N = 150


def losses_of_a_clean_run(n: int = N) -> list[float]:
    losses = fresh_twin().train(*(b"".join(part) for part in zip(*samples(n), strict=True)))
    return [float(loss) for loss in losses]


def loopback(twin: Twin | None = None) -> LoopbackTransport:
    return LoopbackTransport(twin or fresh_twin())


class Peer(LoopbackTransport):
    """A board whose answers a test changes on their way."""

    def change(self, frame: Frame) -> list[Frame]:
        return [frame]

    def write(self, data: bytes) -> None:
        before = len(self._received)
        super().write(data)
        frames = wire.Decoder().feed(bytes(self._received[before:]))
        self._received[before:] = b"".join(wire.encode(new) for frame in frames for new in self.change(frame))


@pytest.mark.parametrize("fault", FAULTS)
def test_one_kind_of_fault(fault: str) -> None:
    faulty = FaultyTransport(loopback(), [fault], rate=0.1, seed=1)
    with Session(faulty, timeout=3) as session:
        assert [r.loss for r in session.train(samples(N))] == losses_of_a_clean_run()
    assert faulty.injected > 10


@pytest.mark.parametrize("seed", range(20))
def test_many_bad_lines(seed: int) -> None:
    """Whatever the order of faults: a step is never lost, doubled or given to another sample."""
    faulty = FaultyTransport(loopback(), list(FAULTS), rate=0.1, seed=seed, breaks=(60 + seed, 90 + 2 * seed))
    with Session(faulty, timeout=3, retries=100, reconnects=2) as session:
        assert [r.loss for r in session.train(samples(60))] == losses_of_a_clean_run(60)


def test_a_clean_line_needs_no_resend() -> None:
    with Session(loopback()) as session:
        list(session.train(samples(N)))
        stats = session.stats()
    assert (stats.frames_good, stats.frames_duplicate, stats.frames_early) == (N + 2, 0, 0)


def test_one_loss_is_repaired_without_waiting_and_by_one_resend() -> None:
    class LosesOne(Peer):
        def change(self, frame: Frame) -> list[Frame]:
            lost = frame.seq == 50 and frame.echo == 0
            return [] if lost else [frame]

    with Session(LosesOne(fresh_twin()), timeout=60) as session:
        began = time.monotonic()
        assert [r.loss for r in session.train(samples(N))] == losses_of_a_clean_run()
        assert time.monotonic() - began < 0.5
        assert session.stats().frames_duplicate <= 16


def test_a_window_is_kept_full_and_never_exceeded() -> None:
    ahead = []

    def source() -> Iterator[tuple[bytes, bytes]]:
        for i in range(N):
            ahead.append(i - len(results))
            yield sample(i)

    results: list[StepResult] = []
    with Session(loopback()) as session:
        results.extend(session.train(source()))
    assert max(ahead) == fresh_twin().hello.replies  # in flight; one more is in hand, to see whether it fits


def test_a_small_window_still_lets_one_through() -> None:
    with Session(WithoutWindow(fresh_twin())) as session:
        assert session.hello().window == 0
        assert [r.loss for r in session.train(samples(N))] == losses_of_a_clean_run()


def test_a_board_that_falls_silent_stops_the_run_within_seconds() -> None:
    class FallsSilent(Peer):
        def change(self, frame: Frame) -> list[Frame]:
            return [] if frame.seq >= 30 and frame.type == Type.STEP | REPLY else [frame]

    session = Session(FallsSilent(fresh_twin()), timeout=0.5)
    began = time.monotonic()
    with pytest.raises(BoardLostError, match=r"has not answered for 0.5 s \(twin, after step 30\)") as lost:
        list(session.train(samples(N)))
    assert lost.value.step == 30
    assert 0.4 < time.monotonic() - began < 1.5


def test_a_board_that_only_logs_is_silent_too() -> None:
    class Chatters(Peer):
        def read(self, timeout: float) -> bytes:
            time.sleep(min(timeout, 0.01))
            return wire.encode(Frame(Type.LOG | REPLY, payload=b"still here"))

    with pytest.raises(BoardLostError, match=r'the last it said: "still here" \(twin\)'):  # it never said its step
        Session(Chatters(fresh_twin()), timeout=0.3).hello()


class WithoutWindow(Peer):
    """Takes in one request at a time."""

    def change(self, frame: Frame) -> list[Frame]:
        if frame.type == Type.HELLO | REPLY:
            frame = frame._replace(payload=frame.payload[:52] + bytes(4) + frame.payload[56:])
        return [frame]


def test_a_damaged_answer_is_asked_for_again_at_once() -> None:
    """As often as it takes: the mark of the resends has eight bits."""

    class DamagesFirst(WithoutWindow):
        latest = -1

        def change(self, frame: Frame) -> list[Frame]:
            if frame.type != Type.STEP | REPLY or frame.seq == self.latest:
                return super().change(frame)
            self.latest = frame.seq
            return [wire.DAMAGED]

    with Session(DamagesFirst(fresh_twin()), timeout=60) as session:
        began = time.monotonic()
        assert [r.loss for r in session.train(samples(300))] == losses_of_a_clean_run(300)
        assert time.monotonic() - began < 5


def test_a_board_that_asks_again_for_ever_is_given_up() -> None:
    class NeverPleased(Peer):
        def change(self, frame: Frame) -> list[Frame]:
            refused = frame.type == Type.STEP | REPLY
            stand = bytes(8)  # number 0 comes next, still
            return [frame._replace(status=Status.OUT_OF_ORDER, payload=stand) if refused else frame]

    began = time.monotonic()
    with pytest.raises(BoardLostError, match="7 resends brought no answer"):
        Session(NeverPleased(fresh_twin()), timeout=60, retries=7).step(*sample(0))
    assert time.monotonic() - began < 1


def test_a_line_too_noisy_is_given_up() -> None:
    faulty = FaultyTransport(loopback(), ["corrupt"], rate=1.0)
    with pytest.raises(BoardLostError, match="not answered"):
        Session(faulty, timeout=0.5).hello()


class Slow(Peer):
    """Takes 0.12 s for each answer."""

    free = 0.0  # when the answers so far have left
    leaving: deque[tuple[float, bytes]]

    def change(self, frame: Frame) -> list[Frame]:
        self.free = max(self.free, time.monotonic()) + 0.12
        self.leaving.append((self.free, wire.encode(frame)))
        return []

    def read(self, timeout: float) -> bytes:
        wait = self.leaving[0][0] - time.monotonic() if self.leaving else timeout
        time.sleep(max(min(wait, timeout), 0))
        return self.leaving.popleft()[1] if self.leaving and wait <= timeout else b""


def test_a_slow_board_is_waited_for_and_learnt() -> None:
    slow = Slow(fresh_twin())
    slow.leaving = deque()
    with Session(slow, timeout=2) as session:  # patience begins at 0.1 s, shorter than a step
        assert [r.loss for r in session.train(samples(10))] == losses_of_a_clean_run(10)
        assert session.stats().frames_duplicate <= 10


def test_a_board_that_restarts_in_the_middle_is_noticed() -> None:
    for ask in (lambda s: s.step(*sample(0)), lambda s: s.read_tensor(0), lambda s: list(s.infer([bytes(10)]))):
        twin = fresh_twin()
        session = Session(loopback(twin))
        list(session.train(samples(20)))
        twin.power_on()
        with pytest.raises(SessionError, match=r"board restarted.*after step 20"):
            ask(session)


def test_a_restart_is_a_success_however_it_shows() -> None:
    class Restarts(Peer):
        how = ""

        def write(self, data: bytes) -> None:
            if wire.Decoder().feed(data)[:1] != [] and data[2] == Type.REBOOT:
                twin.power_on()
                if self.how == "port closes":
                    raise PortClosedError("gone")
            super().write(data)

    for how in ("port closes", "answer lost"):
        twin = fresh_twin()
        peer = Restarts(twin)
        session = Session(peer, timeout=2)
        session.step(*sample(0))
        peer.how = how
        session.restart()
        assert session.hello().steps == 0


def test_another_model_behind_a_broken_connection_is_noticed() -> None:
    class Swapped(Peer):
        hellos = 0

        def change(self, frame: Frame) -> list[Frame]:
            self.hellos += frame.type == Type.HELLO | REPLY
            swapped = frame.type == Type.HELLO | REPLY and self.hellos > 1
            return [frame._replace(payload=bytes(16) + frame.payload[16:]) if swapped else frame]

    faulty = FaultyTransport(Swapped(fresh_twin()), [], breaks=(30,))
    with pytest.raises(SessionError, match="runs model 000000000000, not 001122334455"):
        list(Session(faulty, reconnects=1).train(samples(N)))


def test_half_a_frame_from_before_a_break_is_forgotten() -> None:
    class CutOff(Peer):
        cuts = 0

        def read(self, timeout: float) -> bytes:
            data = super().read(timeout)
            if data[2:3] != bytes([Type.STEP | REPLY]) or self.cuts > 1:
                return data
            self.cuts += 1
            if self.cuts > 1:
                raise PortClosedError("the cable was pulled")
            self._received += data
            return data[:-3]

    with Session(CutOff(fresh_twin()), reconnects=1, timeout=60) as session:
        session.step(*sample(0))
        assert session.stats().frames_good == len(("HELLO", "STEP", "HELLO", "STEP", "STATS"))


def test_opening_ends_what_another_host_left_half_sent() -> None:
    class Listens(Peer):
        first = b""

        def write(self, data: bytes) -> None:
            self.first = self.first or data
            super().write(data)

    peer = Listens(fresh_twin())
    Session(peer).hello()
    assert peer.first == b"\0"


def test_a_board_that_restarts_behind_a_broken_connection_is_noticed() -> None:
    twin = fresh_twin()
    faulty = FaultyTransport(loopback(twin), [], breaks=(30,))
    session = Session(faulty, reconnects=1)
    with pytest.raises(SessionError, match="board restarted"):
        for result in session.train(samples(N)):
            if result.index == 10:
                twin.power_on()


def test_another_model_is_refused_in_one_sentence() -> None:
    with pytest.raises(SessionError) as refused:
        Session(loopback(), expect_hash=bytes(16)).hello()
    assert str(refused.value) == ("the board runs model 001122334455, not 000000000000 (host at twin). "
                                  "Flash the model that is meant.")
    assert Session(loopback(), expect_hash=HASH).hello().hash == HASH


def test_an_answer_of_the_wrong_length_is_refused() -> None:
    class Short(Peer):
        def change(self, frame: Frame) -> list[Frame]:
            return [frame._replace(payload=frame.payload[:-1])] if frame.type & ~REPLY in (3, 4, 8) else [frame]

    with Session(Short(fresh_twin())) as session:
        for ask in (lambda: list(session.infer([bytes(10)])), lambda: session.read_tensor(0), session.profile):
            with pytest.raises(SessionError, match="bytes instead of"):
                ask()


def test_another_protocol_is_refused() -> None:
    class Newer(Peer):
        def change(self, frame: Frame) -> list[Frame]:
            return [frame._replace(version=2, status=Status.BAD_VERSION)]

    with pytest.raises(SessionError, match="speaks version 2 of the protocol, this program 1"):
        Session(Newer(fresh_twin())).hello()


def test_a_label_out_of_range_is_refused_and_the_session_goes_on() -> None:
    with Session(loopback()) as session:
        with pytest.raises(SessionError, match=r"refuses STEP: a label is not a class of the model .*after step 0"):
            list(session.train([(bytes(10), b"\x05" + bytes(7)), *samples(5)]))
        assert [r.loss for r in session.train(samples(N))] == losses_of_a_clean_run()


def test_a_batch_of_the_wrong_size_is_refused_here() -> None:
    with Session(loopback()) as session:
        with pytest.raises(DataError, match=r"9 bytes, the model takes 10 \(x of batch 3\)"):
            list(session.train([*samples(3), (bytes(9), bytes(8))]))
        with pytest.raises(DataError, match="y of batch 0"):
            session.step(bytes(10), bytes(7))
        with pytest.raises(DataError, match="1200 bytes, not 3"):
            session.write_tensor(0, bytes(3))


def test_reading_in_the_middle_of_a_train_is_refused() -> None:
    session = Session(loopback())
    results = session.train(samples(N))
    next(results)
    with pytest.raises(SessionError, match="still under way"):
        session.read_tensor(0)
    assert sum(1 for _ in results) == N - 1


def test_stopping_early_leaves_a_session_that_works() -> None:
    with Session(loopback()) as session:
        taken = list(itertools.islice(session.train(samples(N)), 5))
        assert len(taken) == 5
        done = session.hello().steps
        rest = [r.loss for r in session.train(samples(N - done, start=done))]
        assert rest == losses_of_a_clean_run()[done:]


def test_what_follows_an_early_stop_is_not_taken_for_what_was_in_flight() -> None:
    twin = fresh_twin()
    with Session(loopback(twin)) as session:
        list(itertools.islice(session.train(samples(N)), 5))
        result = session.step(*sample(3))
        assert (result.index + 1).to_bytes(4, "little") == twin.read(2, 0, 4)
        assert result.loss == struct.unpack("<f", twin.read(0, 0, 4))[0]


def test_lines_of_the_board_reach_the_caller() -> None:
    twin = fresh_twin()
    lines: list[str] = []

    class Logs(Peer):
        def change(self, frame: Frame) -> list[Frame]:
            return [*wire.Decoder().feed(twin.log(f"about {frame.seq}")), frame]

    with Session(Logs(twin), on_log=lines.append) as session:
        session.hello()
        list(session.train(samples(3)))
    assert lines[-3:] == ["about 0", "about 1", "about 2"]
