"""Checkpoints over the wire: SAVE, LOAD, FORGET and AUTOSAVE, and what a board does when it starts."""

import struct
from pathlib import Path

import pytest
from fake_board import fresh_twin, library, sample, samples

from strop.errors import DataError, SessionError
from strop.host import wire
from strop.host.session import Session
from strop.host.store import flash_bytes, open_flash
from strop.host.transport.loopback import LoopbackTransport, Twin
from strop.host.wire import REPLY, Ack, Frame, Hello, Stand, Status, Store, Type

DATA_BYTES = 1204
SIZE = flash_bytes(DATA_BYTES)


@pytest.fixture
def flash() -> bytearray:
    return bytearray(SIZE)


def board(flash: bytearray) -> Twin:
    return Twin(library(), flash)


def session_of(twin: Twin) -> Session:
    return Session(LoopbackTransport(twin), timeout=1.0)


def ask(twin: Twin, kind: int, seq: int, payload: bytes = b"") -> list[Frame]:
    return wire.Decoder().feed(twin.feed(wire.encode(Frame(kind, seq, payload))))


def said(twin: Twin) -> list[str]:
    """What the board says when it starts."""
    return [frame.payload.decode() for frame in wire.Decoder().feed(twin.power_on())]


def weights(twin: Twin) -> bytes:
    return twin.read(0, 0, 1200) + twin.read(2, 0, 4)


def test_a_board_goes_on_from_its_checkpoint(flash: bytearray) -> None:
    twin = board(flash)
    assert said(twin) == []
    session = session_of(twin)
    list(session.train(samples(7)))
    assert session.save() == 7
    kept = weights(twin)
    list(session.train(samples(3, start=7)))
    assert said(twin) == ["goes on from the checkpoint of step 7"]
    assert weights(twin) == kept
    assert twin.steps == 7
    hello = Hello.unpack(ask(twin, Type.HELLO, 0)[0])
    assert (hello.steps, hello.store) == (7, Store(SIZE, (1, 0), 7, 0))


def test_a_run_over_a_restart_gives_the_same_bits(flash: bytearray) -> None:
    straight = fresh_twin()
    list(session_of(straight).train(samples(20)))
    first = session_of(board(flash))
    list(first.train(samples(12)))
    first.save()
    second = board(flash)
    list(session_of(second).train(samples(8, start=12)))
    assert weights(second) == weights(straight)
    assert second.steps == 20


def test_load_goes_back(flash: bytearray) -> None:
    twin = board(flash)
    session = session_of(twin)
    with pytest.raises(SessionError, match="refuses LOAD: the board has no complete checkpoint"):
        session.load()
    list(session.train(samples(2)))
    session.save()
    kept = weights(twin)
    list(session.train(samples(5)))
    assert session.load() == session.steps == 2
    assert weights(twin) == kept
    session.reset()
    assert (session.steps, weights(twin)) == (0, bytes(DATA_BYTES))
    assert session.load() == 2


def test_forget_is_a_factory_reset(flash: bytearray) -> None:
    twin = board(flash)
    session = session_of(twin)
    list(session.train(samples(2)))
    session.save()
    session.forget()
    assert (session.steps, weights(twin)) == (0, bytes(DATA_BYTES))
    assert said(twin) == []
    store = session_of(twin).hello().store
    assert store == Store(SIZE, (2, 1), None, 0)


@pytest.mark.parametrize("every, kept", [(1, 10), (3, 9), (10, 10), (11, None), (0, None)])
def test_autosave(flash: bytearray, every: int, kept: int | None) -> None:
    twin = board(flash)
    session = session_of(twin)
    session.autosave(every)
    list(session.train(samples(10)))
    store = session.hello().store
    assert store is not None
    assert (store.saved, store.autosave) == (kept, every)
    assert said(twin) == ([f"goes on from the checkpoint of step {kept}"] if kept else [])
    assert session_of(twin).hello().store.autosave == 0  # type: ignore[union-attr]


def test_a_save_that_fails_stops_nothing_and_says_so() -> None:
    twin = Twin(library(), bytearray(2048), sector=1024)
    session = session_of(twin)
    with pytest.raises(SessionError, match="refuses SAVE: the board's store is too small for a checkpoint"):
        session.save()
    lines: list[str] = []
    session = Session(LoopbackTransport(twin), on_log=lines.append)
    session.autosave(4)
    assert [result.index for result in session.train(samples(9))] == list(range(9))
    assert lines == ["autosave failed at step 4", "autosave failed at step 8"]


def test_a_repeated_save_is_not_another_one(flash: bytearray) -> None:
    twin = board(flash)
    assert [len(ask(twin, Type.SAVE, 0)) for _ in range(5)] == [1] * 5
    assert Ack.unpack(ask(twin, Type.FORGET, 1)[0]) == Ack(0, 0.0, 0)
    store = Hello.unpack(ask(twin, Type.HELLO, 9)[0]).store
    assert store is not None
    assert store.erases == (2, 1)


def test_the_checkpoint_of_another_model(flash: bytearray) -> None:
    """Of firmware with the same tensors and another hash: as if it had been flashed over this one."""
    twin = board(flash)
    twin.save()
    header = bytearray(flash[:44])
    header[28] ^= 1
    flash[:48] = header + struct.pack("<I", _crc(1, header))
    commit = flash[44:48] + flash[52:60]
    flash[48:64] = commit + struct.pack("<I", _crc(2, commit))
    assert said(twin) == ["starts afresh: its checkpoint gives status 13"]
    with pytest.raises(SessionError, match="of another model"):
        twin.load()


def _crc(seed: int, data: bytes | bytearray) -> int:
    import zlib

    return zlib.crc32(data, seed)


REFUSED = {
    "no store": (False, Type.SAVE, b"", Status.UNSUPPORTED),
    "nothing to load from": (False, Type.LOAD, b"", Status.UNSUPPORTED),
    "nothing to forget": (False, Type.FORGET, b"", Status.UNSUPPORTED),
    "nowhere to save": (False, Type.AUTOSAVE, bytes(4), Status.UNSUPPORTED),
    "long save": (True, Type.SAVE, b"\0", Status.BAD_LENGTH),
    "long load": (True, Type.LOAD, b"\0", Status.BAD_LENGTH),
    "long forget": (True, Type.FORGET, b"\0", Status.BAD_LENGTH),
    "short autosave": (True, Type.AUTOSAVE, bytes(3), Status.BAD_LENGTH),
    "nothing saved": (True, Type.LOAD, b"", Status.NO_CHECKPOINT),
}


@pytest.mark.parametrize("with_store, kind, payload, status", REFUSED.values(), ids=REFUSED)
def test_a_refusal_takes_no_number(
    flash: bytearray, with_store: bool, kind: int, payload: bytes, status: Status
) -> None:
    twin = board(flash) if with_store else fresh_twin()
    assert (Hello.unpack(ask(twin, Type.HELLO, 0)[0]).store is None) != with_store
    (reply,) = ask(twin, kind, 0, payload)
    assert (reply.type, reply.status, Stand.unpack(reply)) == (kind | REPLY, status, Stand(0, 0))


def test_a_board_that_restarts_from_a_checkpoint_is_noticed(flash: bytearray) -> None:
    """The first steps are done and saved, their replies lost: it must not be asked to do them again."""
    from strop.host.session import BoardRestartedError
    from strop.host.transport.base import PortClosedError

    twin = board(flash)
    twin.autosave(1)

    class Breaks(LoopbackTransport):
        """A port that closes once steps have been sent: the board does them, and restarts."""

        broken = False

        def write(self, data: bytes) -> None:
            super().write(data)
            if twin.steps and not self.broken:
                self.broken = True
                twin.power_on()
                raise PortClosedError("the cable came off", where=self.name)

    session = Session(Breaks(twin), timeout=1.0, reconnects=3)
    with pytest.raises(BoardRestartedError):
        list(session.train(samples(4)))
    assert twin.steps == 4


# --- files ------------------------------------------------------------------------------------------------------


def test_a_file_outlives_the_twin(tmp_path: Path) -> None:
    file = tmp_path / "flash.bin"
    session = session_of(Twin(library(), open_flash(DATA_BYTES, file)))
    list(session.train([sample(0)]))
    session.save()
    assert file.stat().st_size == SIZE
    assert Twin(library(), open_flash(DATA_BYTES, file)).hello.steps == 1
    with pytest.raises(DataError, match=f"has {SIZE} bytes, checkpoints of this model take"):
        open_flash(100_000, file)
    with pytest.raises(DataError, match="cannot be used"):
        open_flash(DATA_BYTES, tmp_path / "nowhere" / "flash.bin")
    assert sorted(tmp_path.iterdir()) == [file]
