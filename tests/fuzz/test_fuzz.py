"""Tries to break the invariants of runtime/SECURITY.md, board (B) and host (H); nothing else is promised."""

import re
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from cbuild import RUNTIME, compile_c, has_compiler
from fake_board import FAKE, SOURCES, fresh_twin, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.errors import StropError
from strop.host.session import Session
from strop.host.transport.loopback import LoopbackTransport
from strop.host.wire import Decoder, Frame, Type, encode, printable

HERE = Path(__file__).parent
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")

words = st.sampled_from([0, 1, 2, 3, 4, 12, 1199, 1200, 1201, 2**31 - 1, 2**31, 2**32 - 1]).map(
    lambda word: word.to_bytes(4, "little"))
payloads = st.one_of(st.binary(max_size=80), st.lists(words, max_size=6).map(b"".join),
                     st.integers(0, 50).map(lambda i: sample(i)[0] + bytes(2) + sample(i)[1]))
requests = st.builds(Frame, st.one_of(st.sampled_from(Type), st.integers(0, 255)), st.integers(0, 30), payloads,
                     st.just(0), st.integers(0, 255), st.sampled_from([1, 1, 1, 1, 0, 2]))
pieces = st.one_of(st.binary(max_size=60), requests.map(encode), requests.map(lambda f: encode(f)[:-3]),
                   st.integers(1, 700).map(lambda n: b"\x09" * n))


@cache
def fuzzer(name: str = "fuzz_session") -> Path:
    cc = next((cc for cc in ("gcc", "clang") if has_compiler(cc)), "zig")  # zig has no address sanitizer
    flags = SANITIZERS if cc != "zig" else ("-fsanitize=undefined", "-fno-sanitize-recover=all")
    flags = ("-O1", "-g", *flags, f"-I{FAKE}")
    sources = SOURCES if name == "fuzz_session" else SOURCES[1:]  # a store needs no session
    return compile_c([HERE / f"{name}.c", *sources], name, cc=cc, flags=flags)


def run(*arguments: str, data: bytes = b"", name: str = "fuzz_session") -> None:
    done = subprocess.run([str(fuzzer(name)), *arguments], input=data, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")


@settings(max_examples=100, deadline=None)
@given(st.lists(pieces, max_size=12).map(b"".join), st.integers(1, 80))
def test_a_board_survives_any_bytes(data: bytes, piece: int) -> None:
    run(str(piece), data=data)


@pytest.mark.parametrize("seed", range(3))
def test_a_board_survives_nearly_right_frames(seed: int) -> None:
    run(str(seed), "400000")


@pytest.mark.parametrize("seed", range(3))
def test_a_store_survives_whatever_a_flash_holds(seed: int) -> None:
    run(str(seed), "3000", name="fuzz_store")


@pytest.mark.parametrize("letter, name", [("B", "fuzz_session"), ("S", "fuzz_store")])
def test_every_invariant_of_the_board_is_tried(letter: str, name: str) -> None:
    promised = set(re.findall(rf"\*\*({letter}\d)\*\*", (RUNTIME / "SECURITY.md").read_text(encoding="utf-8")))
    tried = set(re.findall(rf"\b{letter}\d\b", (HERE / f"{name}.c").read_text(encoding="utf-8")))
    assert promised == tried | {f"{letter}1"} != set()


class Liar(LoopbackTransport):
    """A board that answers with what a test says, after a true HELLO or none."""

    def __init__(self, answers: list[Frame], honest: bool) -> None:
        super().__init__(fresh_twin())
        self._answers, self._honest = answers, honest

    def write(self, data: bytes) -> None:
        for request in Decoder().feed(data):
            if self._honest and request.type == Type.HELLO:
                super().write(encode(request))
            elif self._answers:
                answer = self._answers.pop()
                self._received += encode(answer._replace(type=answer.type | request.type, seq=request.seq))


answers = st.builds(Frame, st.sampled_from([0x80, 0x80, 0x80, 0x8B, 0]), st.just(0),
                    st.one_of(st.binary(max_size=100), st.sampled_from([bytes(96), b"\xff" * 96, bytes(8)])),
                    st.sampled_from([0, 0, 0, 4, 5, 250]), st.integers(0, 2), st.sampled_from([1, 1, 1, 2]))

CALLS: dict[str, Callable[[Session], object]] = {
    "step": lambda session: session.step(*sample(0)),
    "infer": lambda session: list(session.infer([bytes(10)] * 3)),
    "read": lambda session: session.read_tensor(0),
    "write": lambda session: session.write_tensor(0, bytes(1200)),
    "stats": lambda session: session.stats(),
    "profile": lambda session: session.profile(),
}


@settings(max_examples=150, deadline=None)
@given(st.lists(answers, max_size=6), st.booleans(), st.sampled_from(sorted(CALLS)))
def test_a_host_survives_any_answer(lies: list[Frame], honest: bool, what: str) -> None:
    """H1, H2: a lie is an error of ours or a result, in time; never another exception."""
    session = Session(Liar(lies, honest), timeout=0.02)
    began = time.monotonic()
    try:
        CALLS[what](session)
    except StropError as error:
        assert str(error).isprintable()
    assert time.monotonic() - began < 1


@given(st.binary(max_size=100))
def test_a_host_prints_nothing_that_steers_a_terminal(data: bytes) -> None:
    """H3."""
    assert printable(data).isprintable()


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_decoder_takes_any_bytes(parts: list[bytes]) -> None:
    decoder = Decoder()
    for part in parts:
        assert all(isinstance(frame, Frame) for frame in decoder.feed(part))
