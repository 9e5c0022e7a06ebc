"""The board's side of the wire: every type, every status, and once-only steps, frame by frame."""

import re
import struct
from typing import NamedTuple

import pytest
from cbuild import RUNTIME, build_shared
from fake_board import FAKE, HASH, SOURCES, fresh_twin, sample

from strop.host import wire
from strop.host.transport.loopback import Twin
from strop.host.wire import REPLY, Ack, Frame, Stand, Stats, Status, Tensor, Type

WEIGHTS_BYTES = 1200


@pytest.fixture
def twin() -> Twin:
    return fresh_twin()


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def ask(twin: Twin, kind: int, seq: int, payload: bytes = b"", **header: int) -> Frame:
    reply, = wire.Decoder().feed(twin.feed(wire.encode(Frame(kind, seq, payload, **header))))
    assert (reply.type, reply.seq, reply.version) == (kind | REPLY, seq, wire.VERSION)
    return reply


def step(twin: Twin, seq: int, i: int) -> Frame:
    return ask(twin, Type.STEP, seq, twin.hello.step_payload(*sample(i)))


def test_hello_tells_the_models_sizes(twin: Twin) -> None:
    hello = wire.Hello.unpack(ask(twin, Type.HELLO, 77))
    assert hello == wire.Hello(hash=HASH, abi=1, batch=2, x_bytes=10, y_bytes=8, out_bytes=12, n_tensors=3,
                               n_kernels=2, next_seq=0, steps=0, window=65536, max_payload=16384, replies=16,
                               board="host")


def test_a_step_trains_and_a_repeated_one_does_not(twin: Twin) -> None:
    first, second = step(twin, 0, 0), step(twin, 1, 1)
    weights = twin.read(0, 0, WEIGHTS_BYTES)
    assert (Ack.unpack(first).steps, Ack.unpack(second).steps) == (1, 2)
    assert Ack.unpack(second).loss == struct.unpack_from("<f", weights)[0]
    assert step(twin, 0, 0) == first
    assert step(twin, 1, 1) == second
    assert twin.read(0, 0, WEIGHTS_BYTES) == weights
    assert Stats.unpack(ask(twin, Type.STATS, 2)).frames_duplicate == 2


def test_a_gap_is_refused_with_the_number_that_is_missing(twin: Twin) -> None:
    step(twin, 0, 0)
    reply = step(twin, 2, 2)
    assert (reply.status, Stand.unpack(reply)) == (Status.OUT_OF_ORDER, Stand(1, 1))
    reply = ask(twin, Type.READ, 2, words(0, 0, 4))  # a question keeps its place too
    assert reply.status == Status.OUT_OF_ORDER
    assert Stats.unpack(ask(twin, Type.STATS, 1)).frames_early == 2


def test_replies_are_kept_as_promised_and_no_longer(twin: Twin) -> None:
    kept = twin.hello.replies
    replies = [step(twin, i, i) for i in range(kept + 1)]
    assert [step(twin, i, i) for i in range(1, kept + 1)] == replies[1:]
    assert step(twin, 0, 0).status == Status.DUPLICATE


def test_a_number_from_before_power_on_has_no_kept_reply(twin: Twin) -> None:
    for seq in (wire.SEQ_MASK, wire.SEQ_MASK - 20):
        assert step(twin, seq, 0).status == Status.DUPLICATE
    assert ask(twin, Type.HELLO, 0).payload == ask(fresh_twin(), Type.HELLO, 0).payload


def test_a_kept_reply_is_never_another_requests(twin: Twin) -> None:
    for seq in range(3):
        step(twin, seq, seq)
    assert ask(twin, Type.STATS, 3).status == Status.OK
    assert step(twin, 4, 4).status == Status.OK
    assert step(twin, 4, 4).status == Status.OK
    assert step(twin, 3, 3).status == Status.DUPLICATE  # 3 was a question


def test_a_repeated_question_is_answered_again_and_moves_nothing(twin: Twin) -> None:
    assert ask(twin, Type.READ, 0, words(0, 0, 4)) == ask(twin, Type.READ, 0, words(0, 0, 4))
    assert step(twin, 1, 0).status == Status.OK


REFUSED = {
    "short step": (Type.STEP, bytes(19), Status.BAD_LENGTH),
    "long step": (Type.STEP, bytes(21), Status.BAD_LENGTH),
    "label beyond": (Type.STEP, bytes(12) + words(4, 5), Status.BAD_LABEL),
    "label negative": (Type.STEP, bytes(12) + words(wire.SEQ_MASK, 0), Status.BAD_LABEL),
    "short infer": (Type.INFER, bytes(9), Status.BAD_LENGTH),
    "short read": (Type.READ, words(0, 0), Status.BAD_LENGTH),
    "read no tensor": (Type.READ, words(3, 0, 0), Status.BAD_TENSOR),
    "read beyond": (Type.READ, words(0, WEIGHTS_BYTES - 3, 4), Status.BAD_RANGE),
    "read far beyond": (Type.READ, words(0, WEIGHTS_BYTES + 1, 0), Status.BAD_RANGE),
    "read wraps": (Type.READ, words(0, 4, wire.SEQ_MASK - 3), Status.BAD_RANGE),
    "short write": (Type.WRITE, words(0), Status.BAD_LENGTH),
    "write no tensor": (Type.WRITE, words(3, 0), Status.BAD_TENSOR),
    "write beyond": (Type.WRITE, words(0, WEIGHTS_BYTES - 3) + bytes(4), Status.BAD_RANGE),
    "write constant": (Type.WRITE, words(1, 0) + bytes(4), Status.READ_ONLY),
    "long reset": (Type.RESET, b"\0", Status.BAD_LENGTH),
    "short profile": (Type.PROFILE, words(0), Status.BAD_LENGTH),
    "profile beyond": (Type.PROFILE, words(1, 2), Status.BAD_RANGE),
    "profile wraps": (Type.PROFILE, words(3, wire.SEQ_MASK), Status.BAD_RANGE),
    "short tensor": (Type.TENSOR, b"", Status.BAD_LENGTH),
    "no tensor": (Type.TENSOR, words(3), Status.BAD_TENSOR),
    "short reboot": (Type.REBOOT, b"", Status.BAD_LENGTH),
    "no reboot": (Type.REBOOT, words(0), Status.UNSUPPORTED),
    "unknown type": (0x7F, b"", Status.BAD_TYPE),
}


@pytest.mark.parametrize("kind, payload, status", REFUSED.values(), ids=REFUSED)
def test_a_refusal_changes_nothing_and_takes_no_number(twin: Twin, kind: int, payload: bytes, status: Status) -> None:
    before = twin.read(0, 0, WEIGHTS_BYTES)
    reply = ask(twin, kind, 0, payload)
    assert (reply.status, Stand.unpack(reply)) == (status, Stand(0, 0))
    assert twin.read(0, 0, WEIGHTS_BYTES) == before
    assert step(twin, 0, 0).status == Status.OK


def test_another_version_is_refused(twin: Twin) -> None:
    assert ask(twin, Type.HELLO, 5, version=wire.VERSION + 1).status == Status.BAD_VERSION


def test_a_damaged_frame_gets_a_notice(twin: Twin) -> None:
    step(twin, 0, 0)
    reply, = wire.Decoder().feed(twin.feed(b"\x02\x02\x02\0"))
    assert (reply.type, reply.status, reply.seq) == (Type.NOTICE | REPLY, Status.BAD_FRAME, 1)
    assert Stand.unpack(reply) == Stand(1, 1)


def test_a_reply_is_never_answered(twin: Twin) -> None:
    assert twin.feed(wire.encode(Frame(Type.HELLO | REPLY))) == b""


def test_empty_frames_mean_nothing(twin: Twin) -> None:
    assert twin.feed(bytes(10)) == b""


def test_write_read_and_reset(twin: Twin) -> None:
    data = bytes(range(256))
    assert Ack.unpack(ask(twin, Type.WRITE, 0, words(0, 100) + data)) == Ack(0, 0.0, 0)
    assert ask(twin, Type.READ, 1, words(0, 100, 256)).payload == data
    assert Tensor.unpack(ask(twin, Type.TENSOR, 2, words(1))) == Tensor(12, 0, 0, False)
    assert ask(twin, Type.READ, 3, words(1, 0, 12)).payload == struct.pack("<3f", 1, 2, 3)
    step(twin, 4, 0)
    assert Ack.unpack(ask(twin, Type.RESET, 5)) == Ack(0, 0.0, 0)
    assert ask(twin, Type.READ, 6, words(0, 0, WEIGHTS_BYTES)).payload == bytes(WEIGHTS_BYTES)


def test_infer_gives_cost_and_output(twin: Twin) -> None:
    assert ask(twin, Type.INFER, 0, bytes(range(10))).payload == bytes(8) + struct.pack("<3f", 0, 1, 2)


def test_profile_sums_kernels(twin: Twin) -> None:
    before = struct.unpack("<2Q", ask(twin, Type.PROFILE, 0, words(0, 2)).payload)
    step(twin, 1, 0)
    after = struct.unpack("<2Q", ask(twin, Type.PROFILE, 2, words(0, 2)).payload)
    assert [b - a for a, b in zip(before, after, strict=True)] == [3, 1 << 32]


def test_log_lines_are_counted(twin: Twin) -> None:
    frames = wire.Decoder().feed(twin.log("one") + twin.log("two"))
    assert frames == [Frame(Type.LOG | REPLY, 0, b"one"), Frame(Type.LOG | REPLY, 1, b"two")]


def test_bulk_training_is_the_same_as_frames(twin: Twin) -> None:
    other = fresh_twin()
    losses = twin.train(b"".join(sample(i)[0] for i in range(50)), b"".join(sample(i)[1] for i in range(50)))
    assert list(losses) == [Ack.unpack(step(other, i, i)).loss for i in range(50)]
    assert twin.read(0, 0, WEIGHTS_BYTES) == other.read(0, 0, WEIGHTS_BYTES)
    assert wire.Hello.unpack(ask(twin, Type.HELLO, 0)).steps == 50


class Line(NamedTuple):
    mark: str
    data: bytes


def dialogue() -> list[Line]:
    text = (RUNTIME / "PROTOCOL.md").read_text(encoding="utf-8")
    block, = re.findall(r"```dialogue\n(.*?)```", text, re.DOTALL)
    runs = re.findall(r"((?:^> .*\n)+)((?:^< .*\n)*)", block, re.MULTILINE)
    both = [marked for said, answered in runs for marked in ((">", said), ("<", answered))]
    return [Line(mark, bytes.fromhex(re.sub(r"[<>]", "", run))) for mark, run in both]


def test_the_protocols_examples_are_true(twin: Twin) -> None:
    lines = dialogue()
    assert len(lines) >= 20
    for said, answered in zip(lines[::2], lines[1::2], strict=True):
        assert twin.feed(said.data).hex(" ") == answered.data.hex(" ")


def test_a_port_can_restart_and_buffers_are_checked() -> None:
    harness = r"""
#include "session.h"
int restarts(void);
int too_small(uint32_t rx_bytes, uint32_t out_bytes);
static uint32_t restart_code;
static size_t written;
static _Alignas(8) uint8_t rx[STROP_SESSION_RX_BYTES(10u, 8u)];
static _Alignas(8) uint8_t out[STROP_SESSION_OUT_BYTES(12u)];
uint64_t strop_port_counter(void) { return 0; }
static void take(void *ctx, const uint8_t *bytes, size_t n) { (void)ctx; (void)bytes; written += n; }
/* The reply has left before the board goes down. */
static void restart(void *ctx, uint32_t code) { (void)ctx; restart_code = written > 0 ? code : 0; }
static uint32_t stack_used(void *ctx) { (void)ctx; return 123; }
static strop_session_config_t config = {
    .model = &strop_model, .board = "a name of more than thirty-two bytes, cut", .rx = rx, .rx_bytes = sizeof rx,
    .out = out, .out_bytes = sizeof out, .write = take, .restart = restart, .stack_used = stack_used};
static strop_session_t session;
int restarts(void) {
    static const uint8_t reboot_42[] = {@REBOOT@};
    strop_session_init(&session, &config);
    strop_session_feed(&session, reboot_42, sizeof reboot_42);
    return (int)restart_code;
}
int too_small(uint32_t rx_bytes, uint32_t out_bytes) {
    config.rx_bytes = rx_bytes;
    config.out_bytes = out_bytes;
    return strop_session_init(&session, &config) != STROP_OK;
}
"""
    reboot = ", ".join(map(str, wire.encode(Frame(Type.REBOOT, 0, words(42)))))
    library = build_shared([*SOURCES, harness.replace("@REBOOT@", reboot)], flags=(f"-I{FAKE}",))
    assert library.restarts() == 42
    assert [library.too_small(*sizes) for sizes in ((72, 20), (71, 20), (72, 19))] == [0, 1, 1]
