"""What a linked program takes: bytes of flash and RAM by kind, and its worst-case stack."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import capstone
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

from strop.errors import ToolchainError
from strop.targets.board import Board
from strop.targets.flow import Insn
from strop.targets.stack import Code, Link, deepest, frame_of, jump_targets, loaded_addresses

DATA_SECTIONS = (".rodata", ".data")  # where function addresses may be kept
RAM_CODE = (".data",)  # where functions may lie that run while flash cannot be read
INTERRUPTS = ("strop_interrupt", "strop_tick")  # what the core calls by itself, one at a time
OWN = ("_start", "strop_trap", *INTERRUPTS)


@dataclass(frozen=True)
class Footprint:
    """Sizes in bytes. flash = code + rodata + params + data; static_ram = data + bss; ram = static_ram + stack.

    params: initial images in section ``.strop_params``, which the firmware copies to RAM.
    stack: the worst case from reset on; ``stack_chain`` is the chain of calls that reaches it.
    """

    code: int
    rodata: int
    params: int
    data: int
    bss: int
    stack: int
    stack_chain: tuple[Link, ...]

    @property
    def flash(self) -> int:
        """Bytes of flash."""
        return self.code + self.rodata + self.params + self.data

    @property
    def static_ram(self) -> int:
        """Bytes of RAM that have an address when the program is linked."""
        return self.data + self.bss

    @property
    def ram(self) -> int:
        """Bytes of RAM, the worst stack included."""
        return self.static_ram + self.stack

    def as_dict(self) -> dict[str, object]:
        """Return everything, sums included, ready for JSON."""
        chain = [link._asdict() for link in self.stack_chain]
        sums = {"flash": self.flash, "static_ram": self.static_ram, "ram": self.ram}
        return {**asdict(self), "stack_chain": chain, **sums}


def measure(elf: Path, board: Board) -> Footprint:
    """Read a program that ``build_elf`` linked for ``board``.

    Raises ToolchainError for a file that is no such program, for recursion, and for frames of unknown size.
    """
    with _opened(elf) as file:
        sizes = {section.name: int(section["sh_size"]) for section in file.iter_sections()}
        stack, chain = _interrupted(_code(file, board), _entry(file), board)
    names = {"code": ".text", "rodata": ".rodata", "params": ".params", "data": ".data", "bss": ".bss"}
    return Footprint(**{kind: sizes.get(name, 0) for kind, name in names.items()}, stack=stack, stack_chain=chain)


def _interrupted(code: Code, entry: int, board: Board) -> tuple[int, tuple[Link, ...]]:
    """Return the worst stack from ``entry`` on, and its chain: with an interrupt at its deepest point."""
    stack, chain = deepest(code, entry)
    handlers = [deepest(code, address) for address, name in code.names.items() if name in INTERRUPTS]
    if not handlers:
        return stack, chain
    arch = import_module(f"strop.targets.flow_{board.core.arch}")
    frame = Link("interrupt", arch.interrupt_frame(board.core))
    above, rest = max(handlers, key=lambda found: found[0])
    return stack + frame.bytes + above, (*chain, frame, *rest)


@dataclass(frozen=True)
class Reached:
    """What lies behind some functions: bytes of code, worst stack in bytes, and the chain of calls that reaches it."""

    code: int
    stack: int
    chain: tuple[Link, ...]


def reached(elf: Path, board: Board, roots: Sequence[str]) -> Reached:
    """Measure named functions of a program, with everything they call directly; raises ToolchainError like measure."""
    with _opened(elf) as file:
        code = _code(file, board)
    entries = [address for address, name in code.names.items() if name in roots]
    if not entries:
        raise ToolchainError(f"the program has none of the functions {', '.join(roots)}", where=str(elf))
    stack, chain = max((deepest(code, entry) for entry in entries), key=lambda found: found[0])
    seen: set[int] = set()
    waiting = list(entries)
    while waiting:
        function = waiting.pop()
        if function not in seen:
            seen.add(function)
            waiting += [target for target in frame_of(code, function).calls if target in code.ends]
    return Reached(sum(code.ends[function] - function for function in seen), stack, chain)


def frames(elf: Path, board: Board) -> dict[str, int]:
    """Return the bytes of stack that each function takes for itself, as a compiler's ``-fstack-usage`` states them."""
    with _opened(elf) as file:
        code = _code(file, board)
    return {name: frame_of(code, address).bytes for address, name in code.names.items()}


@contextmanager
def _opened(path: Path) -> Iterator[ELFFile]:
    """Open an ELF file, and turn what can be wrong with it into a ToolchainError."""
    try:
        with path.open("rb") as stream:
            yield ELFFile(stream)
    except (OSError, ELFError) as error:
        raise ToolchainError(f"cannot read the program: {error}", where=str(path)) from error


def _entry(file: ELFFile) -> int:
    return int(file.header["e_entry"]) & ~1


def _code(file: ELFFile, board: Board) -> Code:
    arch = None if board.is_host else import_module(f"strop.targets.flow_{board.core.arch}")
    text = file.get_section_by_name(".text")
    if arch is None or text is None or file.header["e_machine"] != arch.MACHINE:
        raise ToolchainError(f"this is no program for board {board.name!r}")
    start, data = int(text["sh_addr"]), text.data()
    names, ends = _functions(file)
    machine = capstone.Cs(*arch.MODES)
    machine.skipdata_setup = (".unknown", lambda code, _size, at, _: arch.size(code[at] | code[at + 1] << 8), None)
    insns = _disassemble(machine, text, _data_ranges(file, text))
    for section in filter(None, map(file.get_section_by_name, RAM_CODE)):
        insns |= _disassemble(machine, section, _ram_code(section, names, ends))
    decoder = arch.decoder(insns, lambda address: struct.unpack_from("<I", data, address - start)[0])
    targets = jump_targets(insns, decoder)

    def code_addresses(words: Iterable[int]) -> frozenset[int]:
        return frozenset(word - arch.POINTER_BIT for word in words if word & 1 == arch.POINTER_BIT) & insns.keys()

    pointed = code_addresses(_words(file))
    loaded = code_addresses(loaded_addresses(insns, decoder, names))
    taken = _callable(names) & (pointed | loaded)
    return Code(insns, names, ends, decoder, taken, tuple(sorted(pointed)), targets, board.rom_stack)


def _callable(names: dict[int, str]) -> frozenset[int]:
    """Return the functions that a call may reach: all but those that only the core itself enters, on a fresh stack."""
    return frozenset(address for address, name in names.items() if name not in OWN)


def _symbols(file: ELFFile) -> list[tuple[str, int, int, str]]:
    """Return (name, value, size, type) of every symbol."""
    table = file.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        raise ToolchainError("the program has no symbols", do="Link it without stripping")
    return [
        (symbol.name, int(symbol["st_value"]), int(symbol["st_size"]), str(symbol["st_info"]["type"]))
        for symbol in table.iter_symbols()
    ]


def _functions(file: ELFFile) -> tuple[dict[int, str], dict[int, int]]:
    """Return names and ends of functions by first address; of several names, the last (a global one) counts."""
    functions = [(value & ~1, size, name) for name, value, size, kind in _symbols(file) if kind == "STT_FUNC"]
    return {start: name for start, _, name in functions}, {start: start + size for start, size, _ in functions}


def _data_ranges(file: ELFFile, text: Section) -> list[tuple[int, bool]]:
    """Return (address, is data) in order, from the mapping symbols $d, $t and $x and the vector table."""
    marks = {text["sh_addr"]: False}
    for _, value, size, kind in _symbols(file):
        if kind == "STT_OBJECT" and text["sh_addr"] <= value < text["sh_addr"] + text["sh_size"]:
            marks.update({value: True, value + size: False})
    for name, value, _, _ in _symbols(file):
        if name[:2] in ("$d", "$t", "$x") and name[2:3] in ("", "."):
            marks[value & ~1] = name[1] == "d"
    return sorted(marks.items())


def _ram_code(section: Section, names: dict[int, str], ends: dict[int, int]) -> list[tuple[int, bool]]:
    """Return (address, is data) in order, of a section that is data but for functions that start-up code copies."""
    start, stop = int(section["sh_addr"]), int(section["sh_addr"] + section["sh_size"])
    inside = [address for address in sorted(names) if start <= address < stop]
    marks = {start: True, **{ends[address]: True for address in inside}, **dict.fromkeys(inside, False)}
    return sorted((address, is_data) for address, is_data in marks.items() if address < stop or address == start)


def _disassemble(machine: capstone.Cs, section: Section, marks: list[tuple[int, bool]]) -> dict[int, Insn]:
    """Return instructions by address, in order, leaving out data and stepping over what capstone does not know."""
    start, text = int(section["sh_addr"]), section.data()
    machine.skipdata = True
    ends = [*(address for address, _ in marks[1:]), start + len(text)]
    insns: dict[int, Insn] = {}
    for (address, is_data), end in zip(marks, ends, strict=True):
        if not is_data:
            piece = text[address - start : end - start]
            insns.update({fields[0]: Insn(*fields) for fields in machine.disasm_lite(piece, address)})
    return insns


def _words(file: ELFFile) -> set[int]:
    """Return the aligned words of constant and of initialised data."""
    sections = [file.get_section_by_name(name) for name in DATA_SECTIONS]
    data = [section.data() for section in sections if section is not None]
    return {word[0] for bytes_ in data for word in struct.iter_unpack("<I", bytes_[: len(bytes_) & ~3])}
