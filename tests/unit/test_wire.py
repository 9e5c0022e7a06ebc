"""The host's frames: what it mirrors of the C sources, and what it accepts."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from strop.errors import SessionError, TransportError
from strop.host import transport, wire
from strop.host.wire import DAMAGED, REPLY, Frame, Hello, Stats, Status, Type


def runtime(name: str) -> str:
    return files("strop.runtime").joinpath(name).read_text(encoding="utf-8")


def test_statuses_are_those_of_errors_def() -> None:
    assert {number: name for number, (name, _) in wire.sentences().items()} == {s.value: s.name for s in Status}
    assert len(wire.sentences()) == runtime("errors.def").count("\nSTROP_STATUS(")
    assert all(sentence and sentence[0].islower() for _, sentence in wire.sentences().values())


def test_types_and_version_are_those_of_frame_h() -> None:
    types = dict(re.findall(r"^    STROP_(\w+) = (\w+),?", runtime("frame.h"), re.MULTILINE))
    assert int(types.pop("REPLY"), 0) == REPLY
    assert {name: int(number) for name, number in types.items()} == {t.name: t.value for t in Type}
    assert f"#define STROP_PROTOCOL {wire.VERSION}u" in runtime("frame.h")


def test_an_unknown_status_still_has_a_sentence() -> None:
    assert "200" in wire.sentence(200)


def test_an_answer_may_be_longer_than_known_but_not_shorter() -> None:
    payload = bytes(16) + bytes(48) + b"board".ljust(32, b"\0")
    frame = Frame(Type.HELLO | REPLY, payload=payload)
    assert Hello.unpack(frame) == Hello.unpack(frame._replace(payload=payload + b"more"))
    with pytest.raises(SessionError, match="95 bytes instead of 96"):
        Hello.unpack(frame._replace(payload=payload[:-1]))


def test_an_unknown_stack_is_none() -> None:
    assert Stats.unpack(Frame(0, payload=bytes(20) + b"\xff" * 4)).stack_used is None
    assert Stats.unpack(Frame(0, payload=bytes(20) + b"\x10\0\0\0")).stack_used == 16


def test_a_line_of_text_between_frames_is_a_log() -> None:
    decoder = wire.Decoder()
    stream = wire.encode(Frame(1)) + b"\0fault: cause 0x5\0" + wire.encode(Frame(2)) + b"\x05\x80\0"
    assert decoder.feed(stream) == [Frame(1), Frame(Type.LOG | REPLY, payload=b"fault: cause 0x5"), Frame(2), DAMAGED]


def test_text_from_a_board_cannot_steer_a_terminal() -> None:
    assert wire.printable(b"\x1b[2Jcl\xffear\n") == "·[2Jcl\N{REPLACEMENT CHARACTER}ear"


def test_a_decoder_forgets_what_never_ends() -> None:
    decoder = wire.Decoder()
    for _ in range(17):
        assert decoder.feed(b"\x01" * (wire.MAX_RECEIVED // 16)) == []
    assert decoder.feed(b"\0" + wire.encode(Frame(1))) == [Frame(1)]


@pytest.mark.parametrize("address, kind", [
    ("/dev/ttyACM0", "SerialTransport"),
    ("socket://localhost:1", "SerialTransport"),
    ("unix:/tmp/x", "UnixSocketTransport"),
])
def test_an_address_names_its_transport(address: str, kind: str) -> None:
    port = transport.transport_for(address)
    assert (type(port).__name__, port.name) == (kind, address)


def test_an_unknown_address_is_explained() -> None:
    with pytest.raises(TransportError, match=r"no transport opens 'carrier pigeon'.*unix:"):
        transport.transport_for("carrier pigeon")


def test_a_transport_is_added_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pigeon.py").write_text('PREFIXES = ("pigeon:",)\ndef open_address(address): return address\n')
    monkeypatch.setattr(transport, "__path__", [*transport.__path__, str(tmp_path)])
    assert str(transport.transport_for("pigeon:loft")) == "pigeon:loft"
