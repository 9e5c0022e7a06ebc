"""What a bundle costs on its board: RAM with the worst stack, flash, and whether it fits; from linked programs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from strop.host.firmware import elf, library_elf
from strop.targets.elf import measure, reached

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle

ROOTS = ("strop_model_init", "strop_model_train_step", "strop_model_infer")


class _Mapped(Mapping[str, Any]):
    """A dataclass that can also be read as a dict."""

    def __getitem__(self, key: str) -> Any:
        if key not in list(self):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (item.name for item in fields(self))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Ram(_Mapped):
    """Bytes of RAM a training step needs. stack: the worst case of the model's functions, None on the PC."""

    params: int
    state: int
    activations: int
    scratch: int
    stack: int | None
    total: int


@dataclass(frozen=True, eq=False)
class Flash(_Mapped):
    """Bytes of flash of the exported library. code, rodata: None on the PC. params: initial and frozen values."""

    code: int | None
    rodata: int | None
    params: int
    total: int


@dataclass(frozen=True, eq=False)
class Whole(_Mapped):
    """Bytes of the whole firmware: the library, the session with its buffers, start-up and port."""

    ram: int
    flash: int
    ram_available: int
    flash_available: int


@dataclass(frozen=True, eq=False)
class Report(_Mapped):
    """The costs of one bundle. stack_chain: the calls that reach the deepest stack, from the outermost."""

    board: str
    ram: Ram
    flash: Flash
    firmware: Whole | None
    fits: bool
    kernels: list[dict[str, Any]] = field(default_factory=list)
    stack_chain: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain dicts and numbers."""
        return asdict(self)


def report(bundle: "Bundle", *, toolchain: str = "zig") -> Report:
    """Link the bundle's library and its firmware and measure both.

    Raises ToolchainError or PlanError when they cannot be linked.
    """
    sizes, scratch = bundle.plan.sizes, bundle.plan.scratch_bytes()
    constants = sum(bundle.plan.sizes[region] for region in ("params", "const"))
    kernels = [dict(row) for row in bundle.manifest["kernels"]]
    planned = sizes["params"] + sizes["state"] + sizes["arena"]
    if bundle.board.is_host:
        ram = Ram(sizes["params"], sizes["state"], sizes["arena"] - scratch, scratch, None, planned)
        return Report(bundle.board.name, ram, Flash(None, None, constants, constants), None, True, kernels)
    library = measure(library_elf(bundle, toolchain), bundle.board)
    inner = reached(library_elf(bundle, toolchain), bundle.board, ROOTS)
    ram = Ram(sizes["params"], sizes["state"], sizes["arena"] - scratch, scratch, inner.stack, planned + inner.stack)
    flash = Flash(inner.code, library.rodata, library.params, inner.code + library.rodata + library.params)
    whole = measure(elf(bundle, toolchain=toolchain), bundle.board)
    flash_region, ram_region = bundle.board.memory
    firmware = Whole(whole.ram, whole.flash, ram_region.length, flash_region.length)
    fits = whole.ram <= ram_region.length and whole.flash <= flash_region.length
    return Report(bundle.board.name, ram, flash, firmware, fits, kernels, [link.function for link in inner.chain])
