"""Checkpoints (runtime/store.c) on a flash that loses power at every single write and erase.

A case is one such loss, named like `unit4/save2/operation7/garbage`; `STROP_POWER_LOSS=<name> pytest -k again`
runs it alone.
"""

import ctypes
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from cbuild import RUNTIME, build_shared, compile_c, has_compiler
from fake_board import FAKE
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.host.wire import Status

HERE = Path(__file__).parent
SOURCES = (HERE / "store_device.c", RUNTIME / "store.c", RUNTIME / "frame.c", FAKE / "model.c")
WEIGHTS, CALLS = 0, 2
"""The fake model's writable tensors."""
DATA_BYTES = 1204
HARMS = ("nothing", "half", "garbage", "all")
SAVES = 5


class Geometry(NamedTuple):
    """A device: its size, sectors, units and the store's buffer, in bytes."""

    bytes: int
    sector: int
    unit: int
    buffer: int


GEOMETRIES = {
    "unit1": Geometry(8192, 4096, 1, 48),
    "unit4": Geometry(4096, 1024, 4, 48),  # two sectors a slot
    "unit8": Geometry(3 * 2048, 512, 8, 64),
    "unit32": Geometry(4096, 2048, 32, 256),
    "unit256": Geometry(16384, 4096, 256, 256),
    "odd": Geometry(7000, 528, 16, 48),  # no power of two, and a rest
}


class Flash:
    """The harness store_device.c: one device, one store, one model."""

    def __init__(self, geometry: Geometry) -> None:
        self.c = build_shared(SOURCES, flags=(f"-I{FAKE}", f"-I{HERE}"))
        self.c.operations_done.restype = ctypes.c_long
        self.geometry = geometry
        assert self.c.device_new(*geometry) == Status.OK

    def power_on(self) -> None:
        assert self.c.power_on() == Status.OK

    def arm(self, operation: int, harm: str, seed: int = 0) -> None:
        self.c.lose_power_at(ctypes.c_long(operation), HARMS.index(harm), seed)

    def operations(self) -> int:
        return int(self.c.operations_done())

    def save(self, steps: int) -> int:
        return int(self.c.store_save(ctypes.c_uint32(steps)))

    def load(self) -> tuple[int, int | None]:
        """The status, and the count of steps that came with the checkpoint."""
        steps = ctypes.c_uint32(77)
        status = int(self.c.store_load(ctypes.byref(steps)))
        assert status == Status.OK or steps.value == 77
        return status, steps.value if status == Status.OK else None

    def erases(self) -> tuple[int, int]:
        return int(self.c.store_erases(0)), int(self.c.store_erases(1))

    def state(self) -> bytes:
        data = [ctypes.create_string_buffer(self.c.model_bytes_of(i)) for i in (WEIGHTS, CALLS)]
        for i, tensor in zip((WEIGHTS, CALLS), data, strict=True):
            self.c.model_get(i, tensor)
        return b"".join(tensor.raw for tensor in data)

    def set_state(self, steps: int) -> None:
        """Parameters that differ everywhere from those of other counts."""
        data = state(steps)
        self.c.model_put(WEIGHTS, data[:1200])
        self.c.model_put(CALLS, data[1200:])

    def image(self) -> bytes:
        data = ctypes.create_string_buffer(2 * self.geometry.bytes)
        self.c.device_get(data)
        return data.raw

    def put_image(self, image: bytes) -> None:
        self.c.device_put(image)
        self.power_on()

    def train_and_save(self, steps: int) -> int:
        self.set_state(steps)
        return self.save(steps)

    def expect(self, steps: int | None, case: object = "") -> None:
        """After power came back: this checkpoint loads, or (None) there is none and the model is initial."""
        expected = (Status.OK, steps) if steps else (Status.NO_CHECKPOINT, None)
        assert self.load() == expected, case
        assert self.state() == (state(steps) if steps else bytes(DATA_BYTES)), case


@cache
def state(steps: int) -> bytes:
    return bytes((steps * 31 + i * 7 + i // 256) % 251 for i in range(DATA_BYTES))


@pytest.fixture(params=GEOMETRIES)
def flash(request: pytest.FixtureRequest) -> Iterator[Flash]:
    flash = Flash(GEOMETRIES[request.param])
    yield flash
    assert flash.c.misuse() == 0, "a write outside erased units, or a call outside the region"


def test_the_guides_example_compiles() -> None:
    text = (RUNTIME.parent / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```c\n(.*?)```", text, re.DOTALL)
    for cc in filter(has_compiler, ("gcc", "zig")):
        compile_c([example], "example.o", cc=cc, flags=("-c",))


# --- without losses ---------------------------------------------------------------------------------------------


def test_every_save_is_what_loads(flash: Flash) -> None:
    flash.expect(None)
    for steps in range(1, 8):
        assert flash.train_and_save(steps) == Status.OK
        assert flash.state() == state(steps), "saving changes nothing"
        flash.power_on()
        flash.expect(steps)
    assert flash.erases() == (4, 3)


def test_nothing_is_loaded_from_a_device_of_one_value() -> None:
    flash = Flash(GEOMETRIES["unit4"])
    for value in (0x00, 0xFF):
        flash.put_image(bytes([value]) * 4096 + bytes([1]) * 4096)
        flash.expect(None)


def test_damage_anywhere_gives_the_checkpoint_before(flash: Flash) -> None:
    for steps in (1, 2):
        flash.train_and_save(steps)
    image, slot = flash.image(), slot_bytes(flash.geometry)
    header, notes = padded(48, flash.geometry.unit), 9 * padded(16, flash.geometry.unit)
    data = range(slot + header + notes, slot + header + notes + DATA_BYTES, 97)
    for at in [*range(slot, slot + 48), *range(slot + header, slot + header + 16), *data]:
        flash.put_image(image[:at] + bytes([image[at] ^ 0x10]) + image[at + 1 :])
        flash.expect(1, at)
        assert flash.train_and_save(3) == Status.OK
        flash.power_on()
        flash.expect(3, at)
        flash.put_image(image)
        flash.expect(2)


def slot_bytes(geometry: Geometry) -> int:
    return geometry.bytes // 2 // geometry.sector * geometry.sector


def padded(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def test_a_damaged_checkpoint_is_the_one_that_gives_way(flash: Flash) -> None:
    """A save must not erase the last one that loads, however new the other looks."""
    for steps in (1, 2):
        flash.train_and_save(steps)
    image = flash.image()
    at = slot_bytes(flash.geometry) + padded(48, flash.geometry.unit) + 9 * padded(16, flash.geometry.unit)
    broken = image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :]
    flash.put_image(broken)
    flash.arm(0, "garbage")
    flash.train_and_save(3)
    flash.power_on()
    flash.expect(1)


def test_another_models_checkpoint_is_refused_and_gives_way_last(flash: Flash) -> None:
    assert flash.c.store_save_other(5) == Status.OK
    flash.power_on()
    assert flash.load() == (Status.OTHER_MODEL, None)
    assert flash.state() == bytes(DATA_BYTES)
    flash.train_and_save(1)
    assert flash.c.store_save_other(6) == Status.OK  # in place of its own 5: it has none, so ours is not the older
    flash.power_on()
    assert flash.load()[0] in (Status.OK, Status.OTHER_MODEL)


def test_our_own_outlives_anothers_newer_one(flash: Flash) -> None:
    flash.train_and_save(1)
    assert flash.c.store_save_other(9) == Status.OK
    flash.power_on()
    flash.expect(1)
    for steps in (2, 3):
        assert flash.train_and_save(steps) == Status.OK
        flash.power_on()
        flash.expect(steps)


def test_sequence_numbers_go_round(flash: Flash) -> None:
    """Set both slots' numbers to just before 2^32, and to just before 2^31."""
    for around in (2**32, 2**31):
        flash.c.device_new(*flash.geometry)
        flash.train_and_save(1)
        image = bytearray(flash.image())
        reseal(image, 0, flash.geometry.unit, sequence=around - 2)
        flash.put_image(bytes(image))
        for steps in range(2, 7):
            assert flash.train_and_save(steps) == Status.OK
            flash.power_on()
            flash.expect(steps)


def test_a_commit_record_belongs_to_its_header(flash: Flash) -> None:
    flash.train_and_save(1)
    flash.train_and_save(2)
    image = bytearray(flash.image())
    reseal(image, slot_bytes(flash.geometry), flash.geometry.unit, sequence=7, commit=False)
    flash.put_image(bytes(image))
    flash.expect(1)


def reseal(image: bytearray, slot_at: int, unit: int, *, sequence: int, commit: bool = True) -> None:
    """Give a slot another number, and header and commit record the CRCs that belong to it."""
    header = bytearray(image[slot_at : slot_at + 44])
    header[8:12] = sequence.to_bytes(4, "little")
    sealed = zlib.crc32(header, 1).to_bytes(4, "little")
    image[slot_at : slot_at + 48] = header + sealed
    at = slot_at + padded(48, unit)
    body = sealed + bytes(image[at + 4 : at + 12])
    if commit:
        image[at : at + 16] = body + zlib.crc32(body, 2).to_bytes(4, "little")


def test_forget_leaves_nothing_but_the_counts(flash: Flash) -> None:
    for steps in (1, 2, 3):
        flash.train_and_save(steps)
    before = flash.erases()
    assert flash.c.store_forget() == Status.OK
    flash.power_on()
    flash.expect(None)
    assert flash.erases() == (before[0] + 1, before[1] + 1)
    size, header = slot_bytes(flash.geometry), padded(48, flash.geometry.unit)
    for at in (0, size):
        assert set(flash.image()[at + header : at + size]) == {0xFF}
    assert flash.train_and_save(4) == Status.OK
    flash.power_on()
    flash.expect(4)


def test_a_device_too_small_is_a_status_and_untouched() -> None:
    flash = Flash(Geometry(2048, 1024, 4, 48))
    before = flash.image()
    assert flash.train_and_save(1) == Status.STORE_TOO_SMALL
    assert flash.image() == before
    exact = 48 + 9 * 16 + DATA_BYTES  # STROP_STORE_SLOT_BYTES
    assert Flash(Geometry(2 * exact, exact, 4, 48)).train_and_save(1) == Status.OK
    assert Flash(Geometry(2 * exact - 8, exact - 4, 4, 48)).train_and_save(1) == Status.STORE_TOO_SMALL


@pytest.mark.parametrize("wrong", [
    Geometry(4096, 4096, 4, 48), Geometry(4096, 1022, 4, 48), Geometry(4096, 1024, 3, 48), Geometry(4096, 1024, 4, 44),
    Geometry(4096, 1024, 512, 512), Geometry(4096, 1024, 0, 48), Geometry(4096, 0, 4, 48), Geometry(4096, 1024, 4, 50),
])  # fmt: skip
def test_a_config_beyond_its_bounds_is_refused(wrong: Geometry) -> None:
    flash = Flash(GEOMETRIES["unit4"])
    assert flash.c.device_new(*wrong) == Status.STORE_FAILED
    assert flash.save(1) == Status.UNSUPPORTED
    assert flash.load()[0] == Status.UNSUPPORTED
    assert flash.c.store_forget() == Status.UNSUPPORTED


def test_a_worn_sector_is_noticed_before_the_commit(flash: Flash) -> None:
    """A write that silently does not hold: the save fails, and the checkpoint before it still loads."""
    flash.train_and_save(1)
    flash.train_and_save(2)
    image = flash.image()
    flash.operations()
    flash.train_and_save(3)
    operations = flash.operations()
    for operation in range(1, operations):
        flash.put_image(image)
        flash.c.lose_silently(ctypes.c_long(operation))
        status = flash.train_and_save(3)
        flash.power_on()
        flash.expect(3 if status == Status.OK else 2)  # a sector may have been blank enough where erasing it failed
        assert status == Status.STORE_FAILED or flash.c.misuse() > 0, operation
        flash.c.forgive()


# --- every loss -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Power goes at one operation of the n-th save."""

    geometry: str
    save: int
    operation: int
    harm: str

    def __str__(self) -> str:
        return f"{self.geometry}/save{self.save}/operation{self.operation}/{self.harm}"

    @classmethod
    def named(cls, name: str) -> "Case":
        geometry, save, operation, harm = name.split("/")
        return cls(geometry, int(save.removeprefix("save")), int(operation.removeprefix("operation")), harm)


def before(case: Case) -> Flash:
    """The device after all earlier saves."""
    flash = Flash(GEOMETRIES[case.geometry])
    for steps in range(1, case.save):
        flash.train_and_save(steps)
    flash.operations()
    return flash


def lose(flash: Flash, case: Case) -> bool:
    """Lose power as the case says, look, and save again; whether that operation existed."""
    counts = flash.erases()
    flash.arm(case.operation, case.harm, seed=case.operation)
    saved = flash.train_and_save(case.save) == Status.OK
    if saved:
        return False
    flash.power_on()
    steps = flash.load()[1]
    legal = {case.save - 1 or None} | ({case.save} if case.harm in ("all", "half") else set())
    assert steps in legal, case
    assert flash.state() == (state(steps) if steps else bytes(DATA_BYTES)), case
    assert all(a <= b for a, b in zip(counts, flash.erases(), strict=True)), case
    for later in (case.save + 1, case.save + 2):
        assert flash.train_and_save(later) == Status.OK, case
        flash.power_on()
        flash.expect(later, case)
    assert flash.c.misuse() == 0, case
    return True


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("save", range(1, SAVES + 1))
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_power_is_lost_at_every_operation_of_a_save(geometry: str, save: int, harm: str) -> None:
    operation = 0
    flash = before(Case(geometry, save, 0, harm))
    image = flash.image()
    while lose(flash, Case(geometry, save, operation, harm)):
        flash.put_image(image)
        operation += 1
    sectors = -(-(DATA_BYTES + 200) // GEOMETRIES[geometry].sector)
    assert operation >= sectors + 3, "erases, header, tensors, commit record"


def test_one_loss_again() -> None:
    """For a look at one case: STROP_POWER_LOSS=<its name>."""
    case = Case.named(os.environ.get("STROP_POWER_LOSS", "unit4/save2/operation3/half"))
    assert lose(before(case), case)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_power_is_lost_at_every_operation_of_a_factory_reset(geometry: str, harm: str) -> None:
    """What was newest loads, or nothing does: never the checkpoint before it."""
    flash = before(Case(geometry, 4, 0, harm))
    image, operation, counts = flash.image(), 0, flash.erases()
    while True:
        flash.arm(operation, harm, seed=operation)
        if flash.c.store_forget() == Status.OK:
            break
        flash.power_on()
        assert flash.load()[1] in (3, None), operation
        assert all(a <= b for a, b in zip(counts, flash.erases(), strict=True)), operation
        assert flash.c.store_forget() == Status.OK
        flash.power_on()
        flash.expect(None, operation)
        flash.put_image(image)
        operation += 1
    assert operation >= 4


acts = st.tuples(st.sampled_from(["save", "save", "save", "save", "other", "forget"]),
                 st.one_of(st.none(), st.tuples(st.integers(0, 60), st.sampled_from(HARMS), st.integers(0, 9))))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(GEOMETRIES)), st.lists(acts, max_size=30))
def test_any_course_of_saves_and_losses(name: str, course: list[tuple[str, tuple[int, str, int] | None]]) -> None:
    """Against a model of two facts: what may load, and counts that never go back."""
    flash = Flash(GEOMETRIES[name])
    loads: int | None = None
    for steps, (act, loss) in enumerate(course, 1):
        counts = flash.erases()
        if loss:
            flash.arm(*loss)
        flash.set_state(steps)
        done = {"save": flash.c.store_save, "other": flash.c.store_save_other,
                "forget": lambda _: flash.c.store_forget()}[act](ctypes.c_uint32(steps)) == Status.OK  # fmt: skip
        flash.power_on()
        status, found = flash.load()
        new = {"save": steps, "other": loads, "forget": None}[act]
        if act == "other" and done:
            assert status in (Status.OK, Status.OTHER_MODEL)  # the other model knows not of ours: it may erase it
            assert found in (loads, None)
        else:
            assert found == new if done else found in (loads, new, None if act == "other" else loads)
        loads = found
        assert flash.state() == (state(found) if found else bytes(DATA_BYTES))
        assert all(a <= b for a, b in zip(counts, flash.erases(), strict=True))
    assert flash.c.misuse() == 0


@pytest.mark.parametrize("harm", HARMS)
def test_counts_of_erases_never_go_back(harm: str) -> None:
    """A device whose power fails during each save, far more often than there are notes."""
    flash = Flash(GEOMETRIES["unit4"])
    flash.train_and_save(1)
    flash.train_and_save(2)
    last = flash.erases()
    for operation in [5, 0, 4, 1, 6, 0, 0, 2, 9] * 12:
        flash.arm(operation, harm, seed=operation)
        assert flash.train_and_save(3) != Status.OK
        flash.power_on()
        flash.expect(2)
        assert all(a <= b for a, b in zip(last, flash.erases(), strict=True))
        last = flash.erases()
    assert last[0] > 3


def test_counts_never_go_back_before_the_first_checkpoint() -> None:
    flash = Flash(GEOMETRIES["unit4"])
    last = flash.erases()
    for operation in [5, 0, 3, 0, 1, 1, 0, 9, 2] * 4:
        flash.arm(operation, "garbage", seed=operation)
        assert flash.train_and_save(1) != Status.OK
        flash.power_on()
        flash.expect(None)
        assert all(a <= b for a, b in zip(last, flash.erases(), strict=True))
        last = flash.erases()
    assert sum(last) > 4


def test_repeated_saves_are_counted_as_long_as_there_are_notes() -> None:
    flash = Flash(GEOMETRIES["unit4"])
    flash.train_and_save(1)
    flash.train_and_save(2)
    for lost in range(1, 21):
        flash.arm(9, "garbage")
        assert flash.train_and_save(3) != Status.OK
        flash.power_on()
        assert flash.erases() == (1 + min(lost, 1 + 8), 1)
    assert flash.train_and_save(3) == Status.OK
    assert flash.train_and_save(4) == Status.OK
    flash.power_on()
    assert flash.erases() == (10, 2)
