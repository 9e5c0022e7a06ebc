"""Requests to one board and an answer to each, whatever the line does to the frames.

Requests go out in a window, so that the line is never idle for a round trip, and go out again from the oldest that
is unanswered whenever an answer is missing (go-back-N). The board carries out each change once, in sequence
(runtime/PROTOCOL.md, "Order"), so sending again is always harmless.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from typing import NamedTuple

from strop.errors import SessionError, TransportError
from strop.host import wire
from strop.host.transport.base import PortClosedError, Transport
from strop.host.wire import REPLY, SEQ_MASK, Ack, Frame, Hello, Stand, Status, Type

MOST_IN_FLIGHT = 256
"""Requests, whatever a board promises: as many as there are marks to tell resends apart."""

STORE_SECONDS = 20.0
"""What a board may take over a save or a factory reset: a sector of 128 KB is erased in up to 4 s."""

COUNTING = frozenset(kind | REPLY for kind in (Type.STEP, Type.RESET, Type.LOAD, Type.FORGET))
"""Replies that say how many steps are done now."""

_board_log = logging.getLogger("strop.board")


SLOWEST_LINE = 10_000
"""Bytes a second: a serial line at 115,200 baud. A frame may take that long before it counts as missing."""


class BoardLostError(TransportError):
    """The board is silent, or its port is closed; ``step`` is the number of steps it is known to have done."""

    def __init__(self, what: str, *, where: str, step: int, do: str) -> None:
        super().__init__(what, where=where, do=do)
        self.step = step


class BoardRestartedError(SessionError):
    """The board does not stand where this program left it: its parameters are not those of this run."""


class Request(NamedTuple):
    """What is asked of the board."""

    type: Type
    payload: bytes = b""

    @property
    def wire_bytes(self) -> int:
        """At most so many bytes on the wire."""
        size = 8 + len(self.payload) + 4
        return size + size // 254 + 2


class _Verdict(Enum):
    """What a received frame means to the oldest request in flight."""

    ANSWER = auto()   # it is answered
    MISSING = auto()  # it, or its answer, did not arrive
    DAMAGED = auto()  # some frame did not arrive whole
    NOTHING = auto()  # an answer to an earlier resend, a line of text


class _Flight:
    """Requests sent and not yet answered, oldest first, and those that wait for their turn."""

    def __init__(self, requests: Iterable[Request], base: int) -> None:
        self._waiting = iter(requests)
        self._first = next(self._waiting, None)
        self.is_greeting = self._first is not None and self._first.type is Type.HELLO
        self.sent: deque[Request] = deque()
        self.base = base  # the sequence number of sent[0]
        self._bytes = 0

    def admit(self, most: int, window: int) -> Iterator[tuple[int, Request]]:
        """Yield, numbered, the requests that may go out: one at least, ``most`` or ``window`` bytes at most."""
        while self._first and len(self.sent) < most and self._fits(self._first, window):
            seq = (self.base + len(self.sent)) & SEQ_MASK
            self.sent.append(self._first)
            self._bytes += self._first.wire_bytes
            yield seq, self._first
            self._first = next(self._waiting, None)

    def numbered(self) -> Iterator[tuple[int, Request]]:
        """Yield what was sent once more."""
        return (((self.base + i) & SEQ_MASK, request) for i, request in enumerate(self.sent))

    def pop(self) -> None:
        """The oldest is answered."""
        self._bytes -= self.sent.popleft().wire_bytes
        self.base = (self.base + 1) & SEQ_MASK

    def position(self, frame: Frame) -> int | None:
        """Return the place of the request that a reply answers; None when it is not in flight."""
        place = (frame.seq - self.base) & SEQ_MASK
        found = place < len(self.sent) and frame.type == self.sent[place].type | REPLY
        return place if found else None

    def leads_to(self, stand: Stand, steps: int) -> bool:
        """Tell whether a board that had done so many steps can have come there by this flight.

        The number alone does not tell: a board that restarts expects 0 again, and may go on from a checkpoint.
        """
        done = (stand.next_seq - self.base) & SEQ_MASK
        if done > len(self.sent):
            return False
        carried_out = [request.type for request, _ in zip(self.sent, range(done), strict=False)]
        counts = not {Type.RESET, Type.LOAD, Type.FORGET}.isdisjoint(carried_out)  # they set the count
        return counts or stand.steps == (steps + carried_out.count(Type.STEP)) & SEQ_MASK

    def _fits(self, request: Request, window: int) -> bool:
        return not self.sent or self._bytes + request.wire_bytes <= window


class Link:
    """A transport with frames, numbers, resends and a window. Parameters: see Session."""

    def __init__(self, transport: Transport, *, expect_hash: bytes | None, timeout: float, retries: int,
                 reconnects: int, on_log: Callable[[str], None] | None) -> None:
        self._transport, self._expect_hash = transport, expect_hash
        self._timeout, self._retries, self._reconnects = timeout, retries, reconnects
        transport.patience = timeout  # a board that computes takes no bytes
        self._on_log = on_log or _board_log.info
        self._decoder = wire.Decoder()
        self._inbox: deque[Frame] = deque()
        self._agreed: Hello | None = None  # None: the sequence must be agreed on before the next request
        self._next = 0                     # the next request's number
        self._round = 0                    # mark of the latest (re)send; the board echoes it
        self._slowest = timeout / 80       # longest wait for an answer so far, in seconds
        self._last_line = ""
        self._is_open = self._is_busy = self._has_met = False
        self.steps = 0
        """Steps the board is known to have done."""

    # ---- used by the session ----

    def hello(self, *, again: bool = False) -> Hello:
        """Return who the board is; asks it when that is not known, or once more."""
        if again or self._agreed is None:
            self._exclusively()
            self._agreed = None
            self._agreed = self._ask_hello()
        return self._agreed

    def stream(self, requests: Iterable[Request]) -> Iterator[Frame]:
        """Send requests, a window at a time; yield the reply to each, in order.

        All of them are changes, or none. One stream at a time.
        """
        self.hello()
        self._exclusively()
        flight = _Flight(requests, self._next)
        self._is_busy = True
        try:
            for reply in self._answers(flight):
                self._next = flight.base
                yield reply
        finally:
            self._is_busy = False
            if flight.sent:
                self._agreed = None  # left half way: only the board knows how many arrive

    def close(self) -> None:
        """Close the port."""
        self._transport.close()
        self._agreed, self._is_open = None, False

    # ---- the window ----

    def _answers(self, flight: _Flight) -> Iterator[Frame]:
        while True:
            try:
                self._open()
                if not self._fill(flight):
                    return
                reply = self._await(flight)
            except PortClosedError as error:
                self._recover(flight, error)
            else:
                yield reply

    def _fill(self, flight: _Flight) -> bool:
        """Send what the window allows; tell whether anything is in flight."""
        hello = self._agreed
        most, window = (hello.replies, hello.window) if hello else (1, 0)
        self._send(flight.admit(min(max(most, 1), MOST_IN_FLIGHT), window))
        return bool(flight.sent)

    def _send(self, numbered: Iterable[tuple[int, Request]]) -> None:
        frames = [wire.encode(Frame(kind, seq, payload, echo=self._round)) for seq, (kind, payload) in numbered]
        if frames:
            self._transport.write(b"".join(frames))

    def _await(self, flight: _Flight) -> Frame:
        """Return the answer to the oldest request, sending all in flight again as often as it takes."""
        began = now = time.monotonic()
        first_round, resends, heard_damage = self._round, 0, False
        on_the_line = self._transfer_time(flight.sent[0])
        silence = self._timeout + (STORE_SECONDS if self._may_save(flight.sent[0]) else 0.0)
        timeout = silence + on_the_line
        patience = min(4 * self._slowest, silence / 6) + on_the_line
        due = began + patience
        while now - began < timeout and resends <= self._retries:
            frame = self._receive(min(due, began + timeout))
            verdict = self._judge(frame, flight) if frame else _Verdict.MISSING
            now = time.monotonic()
            if frame and verdict is _Verdict.ANSWER:
                if frame.echo == first_round:
                    self._slowest = max(self._slowest, now - began)
                flight.pop()
                return frame
            if verdict is _Verdict.MISSING or (verdict is _Verdict.DAMAGED and not heard_damage):
                patience = patience if frame else min(2 * patience, silence / 6 + on_the_line)
                due = now + patience
                resends += 1
                heard_damage = verdict is _Verdict.DAMAGED
                self._send_again(flight)
        raise self._silent(resends)

    def _may_save(self, request: Request) -> bool:
        """Tell whether the board may erase flash over it."""
        store = self._agreed.store if self._agreed else None
        return request.type in (Type.SAVE, Type.FORGET) or bool(store and store.autosave and request.type is Type.STEP)

    def _transfer_time(self, request: Request) -> float:
        """Seconds that a request and its answer may take on the slowest line in use."""
        answer = self._agreed.out_bytes if self._agreed and request.type is Type.INFER else 0
        return (request.wire_bytes + answer) / SLOWEST_LINE

    def _send_again(self, flight: _Flight) -> None:
        self._round = (self._round + 1) & 0xFF
        self._send(flight.numbered())

    def _receive(self, until: float) -> Frame | None:
        """Return the next frame; None when there is none by then."""
        while not self._inbox:
            left = until - time.monotonic()
            if left <= 0:
                return None
            self._inbox.extend(self._decoder.feed(self._transport.read(left)))
        return self._inbox.popleft()

    def _judge(self, frame: Frame, flight: _Flight) -> _Verdict:
        """Tell what a frame means; raise for an answer that ends the stream."""
        if frame.type == Type.LOG | REPLY:
            self._last_line = wire.printable(frame.payload)
            self._on_log(self._last_line)
            return _Verdict.NOTHING
        if frame.type == Type.NOTICE | REPLY:
            return _Verdict.DAMAGED
        place = flight.position(frame)
        if place is None:
            return _Verdict.NOTHING
        if frame.status not in (Status.OK, Status.OUT_OF_ORDER):
            raise self._refusal(frame)
        if frame.status == Status.OK and place == 0:
            self._note_progress(frame)
            return _Verdict.ANSWER
        if frame.echo != self._round:
            return _Verdict.NOTHING
        if frame.status == Status.OUT_OF_ORDER:
            self._check_stand(Stand.unpack(frame), flight)
        return _Verdict.MISSING

    def _note_progress(self, frame: Frame) -> None:
        if frame.type in COUNTING:
            self.steps = Ack.unpack(frame).steps

    # ---- opening, agreeing, recovering ----

    def _open(self) -> None:
        if not self._is_open:
            self._transport.open()
            self._is_open = True
            self._decoder.reset()
            self._transport.write(b"\0")  # ends whatever an earlier host left half sent

    def _ask_hello(self) -> Hello:
        reply, = self._answers(_Flight([Request(Type.HELLO)], secrets.randbits(32)))
        hello = Hello.unpack(reply)
        expected = self._agreed.hash if self._agreed else self._expect_hash  # after a reconnect: the same as before
        if expected is not None and hello.hash != expected:
            raise SessionError(f"the board runs model {hello.hash.hex()[:12]}, not {expected.hex()[:12]}",
                               where=f"{hello.board} at {self._transport.name}", do="Flash the model that is meant")
        self._next, self.steps, self._has_met = hello.next_seq, hello.steps, True
        return hello

    def _recover(self, flight: _Flight, error: PortClosedError) -> None:
        """Open a closed port again and take up the flight where the board stands, or give up."""
        self._drop_port()
        while self._reconnects > 0:
            self._reconnects -= 1
            try:
                self._reopen()
                self._catch_up(flight)
            except PortClosedError as again:
                error = again
                self._drop_port()
            else:
                return
        raise self._lost(error.what, error.do or "Start the board again, and resume") from error

    def _drop_port(self) -> None:
        self._transport.close()
        self._is_open = False

    def _reopen(self) -> None:
        until = time.monotonic() + self._timeout
        while not self._is_open:
            try:
                self._open()
            except PortClosedError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.02)

    def _catch_up(self, flight: _Flight) -> None:
        if not flight.is_greeting:
            known = self.steps
            hello = self._ask_hello()
            self.steps = known
            self._check_stand(Stand(hello.next_seq, hello.steps), flight)
        self._send_again(flight)

    def _check_stand(self, stand: Stand, flight: _Flight) -> None:
        if not flight.leads_to(stand, self.steps):
            raise BoardRestartedError("the board restarted, or another program used it: it has not this run's state",
                                      where=self._place(), do="Resume from the parameters that were pulled last")

    # ---- errors ----

    def _place(self) -> str:
        return f"{self._transport.name}, after step {self.steps}" if self._has_met else self._transport.name

    def _lost(self, what: str, do: str) -> BoardLostError:
        last = f'; the last it said: "{self._last_line}"' if self._last_line else ""
        return BoardLostError(what + last, where=self._place(), step=self.steps, do=do)

    def _silent(self, resends: int) -> BoardLostError:
        if resends > self._retries:
            return self._lost(f"{self._retries} resends brought no answer: the line is too noisy",
                              "Check the cable and the baud rate")
        return self._lost(f"the board has not answered for {self._timeout:g} s",
                          "Reset it, or allow a longer timeout if a step takes that long")

    def _refusal(self, frame: Frame) -> SessionError:
        if frame.status == Status.BAD_VERSION or frame.version != wire.VERSION:
            return SessionError(f"the board speaks version {frame.version} of the protocol, this program "
                                f"{wire.VERSION}", where=self._place(), do="Flash firmware of this version")
        kind = Type(frame.type & ~REPLY).name
        return SessionError(f"the board refuses {kind}: {wire.sentence(frame.status)}", where=self._place())

    def _exclusively(self) -> None:
        if self._is_busy:
            raise SessionError("another request to this board is still under way", where=self._transport.name,
                               do="Finish or close that train(), infer() or read first")
