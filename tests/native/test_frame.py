"""frame.c against zlib, cobs and the host's own decoder."""

import ctypes
import zlib

from cbuild import RUNTIME, build_shared
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.host import wire
from strop.host.wire import DAMAGED, Frame

HARNESS = r"""
#include <string.h>
#include "frame.h"

size_t encode_all(const void *header, const uint8_t *payload, size_t n, size_t cut, uint8_t *out);
size_t decode_all(const uint8_t *bytes, size_t n, size_t piece, uint8_t *frame, uint32_t capacity, uint8_t *out);

static void append(void *ctx, const uint8_t *bytes, size_t n) {
    uint8_t **end = ctx;
    memcpy(*end, bytes, n);
    *end += n;
}

size_t encode_all(const void *header, const uint8_t *payload, size_t n, size_t cut, uint8_t *out) {
    uint8_t *end = out;
    strop_encoder_t encoder = {.write = append, .ctx = &end};
    strop_encoder_begin(&encoder, header);
    strop_encoder_put(&encoder, payload, cut);
    strop_encoder_put(&encoder, payload + cut, n - cut);
    strop_encoder_end(&encoder);
    return (size_t)(end - out);
}

/* Each event as its length (all ones: damaged) and its bytes. */
size_t decode_all(const uint8_t *bytes, size_t n, size_t piece, uint8_t *frame, uint32_t capacity, uint8_t *out) {
    uint8_t *end = out;
    strop_decoder_t decoder;
    strop_decoder_init(&decoder, frame, capacity);
    while (n > 0) {
        strop_event_t event;
        size_t taken = strop_decoder_feed(&decoder, bytes, n < piece ? n : piece, &event);
        uint32_t length = event == STROP_EVENT_FRAME ? decoder.length : UINT32_MAX;
        if (event != STROP_EVENT_NONE) append(&end, (const uint8_t *)&length, sizeof length);
        if (event == STROP_EVENT_FRAME) append(&end, frame, length);
        bytes += taken;
        n -= taken;
    }
    return (size_t)(end - out);
}
"""
MANY = settings(max_examples=300, deadline=None)
# Long runs without a zero, and runs of zeros, are where COBS goes wrong.
payloads = st.lists(
    st.one_of(st.binary(max_size=40), st.integers(1, 600).map(lambda n: b"\x07" * n), st.just(bytes(5))), max_size=5,
).map(b"".join)
headers = st.tuples(*[st.integers(0, 255)] * 3, st.integers(0, 2**32 - 1))


def library() -> ctypes.CDLL:
    lib = build_shared([RUNTIME / "frame.c", HARNESS], flags=("-Wno-missing-prototypes",))
    lib.encode_all.restype = lib.decode_all.restype = ctypes.c_size_t
    lib.strop_crc32.restype = ctypes.c_uint32
    return lib


def c_decode(data: bytes, piece: int, capacity: int = 4096) -> list[bytes | None]:
    frame = ctypes.create_string_buffer(capacity)
    out = ctypes.create_string_buffer(5 * len(data) + 16)
    size = library().decode_all(data, ctypes.c_size_t(len(data)), ctypes.c_size_t(piece), frame,
                                ctypes.c_uint32(capacity), out)
    events: list[bytes | None] = []
    at = 0
    while at < size:
        length = int.from_bytes(out.raw[at:at + 4], "little")
        damaged = length == wire.UNKNOWN
        at += 4
        events.append(None if damaged else out.raw[at:at + length])
        at += 0 if damaged else length
    return events


def body(frame: Frame) -> bytes:
    head = bytes([frame.version, frame.type, frame.status, frame.echo]) + frame.seq.to_bytes(4, "little")
    return head + frame.payload + zlib.crc32(head + frame.payload).to_bytes(4, "little")


@MANY
@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_crc_is_zlibs(data: bytes, start: int) -> None:
    assert library().strop_crc32(ctypes.c_uint32(start), data, ctypes.c_size_t(len(data))) == zlib.crc32(data, start)


@MANY
@given(headers, payloads, st.integers(0, 3000))
def test_the_board_encodes_what_the_host_does(header: tuple[int, int, int, int], payload: bytes, cut: int) -> None:
    kind, status, echo, seq = header
    frame = Frame(kind, seq, payload, status, echo)
    out = ctypes.create_string_buffer(2 * len(payload) + 64)
    cut = min(cut, len(payload))
    size = library().encode_all(body(frame)[:8], payload, ctypes.c_size_t(len(payload)), ctypes.c_size_t(cut), out)
    assert out.raw[:size] == wire.encode(frame)


@MANY
@given(st.lists(st.tuples(headers, payloads), max_size=4), st.integers(1, 700))
def test_frames_in_any_pieces_come_out_whole(contents: list[tuple[tuple[int, int, int, int], bytes]],
                                             piece: int) -> None:
    frames = [Frame(kind, seq, payload, status, echo) for (kind, status, echo, seq), payload in contents]
    stream = b"".join(map(wire.encode, frames))
    assert c_decode(stream, piece) == [body(frame) for frame in frames]
    decoder = wire.Decoder()
    assert [f for at in range(0, len(stream), piece) for f in decoder.feed(stream[at:at + piece])] == frames


@MANY
@given(st.lists(st.one_of(st.binary(max_size=30), payloads.map(lambda p: wire.encode(Frame(2, 9, p)))), max_size=6),
       st.integers(0, 2000), st.integers(0, 255), st.integers(1, 64))
def test_both_decoders_agree_on_damage(parts: list[bytes], at: int, byte: int, piece: int) -> None:
    stream = bytearray(b"\0".join(parts) + b"\0")
    stream[at % len(stream)] = byte
    stream += b"\0"
    host = wire.Decoder().feed(bytes(stream))
    text_or_damaged = [None if f == DAMAGED or f.type == wire.Type.LOG | wire.REPLY else body(f) for f in host]
    assert c_decode(bytes(stream), piece) == text_or_damaged


def test_a_frame_longer_than_the_buffer_is_skipped_whole() -> None:
    fits, too_long = Frame(2, 1, b"a" * 20), Frame(2, 2, b"b" * 21)
    stream = b"".join(map(wire.encode, (fits, too_long, fits)))
    assert c_decode(stream, 7, capacity=len(body(fits))) == [body(fits), None, body(fits)]


def test_a_whole_frame_with_more_behind_it_is_none() -> None:
    whole = body(Frame(2, 1, b"a" * 20))
    assert c_decode(cobs.encode(whole + b"\0x") + b"\0", 7, capacity=len(whole)) == [None]


def test_every_flipped_bit_is_noticed() -> None:
    clean = wire.encode(Frame(2, 0x01020304, bytes(range(30))))
    for bit in range(8 * (len(clean) - 1)):
        damaged = bytearray(clean)
        damaged[bit // 8] ^= 1 << bit % 8
        assert body(Frame(2, 0x01020304, bytes(range(30)))) not in c_decode(bytes(damaged), 64)
        assert set(wire.Decoder().feed(bytes(damaged))) == {DAMAGED}
