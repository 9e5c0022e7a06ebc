"""UF2 (github.com/microsoft/uf2): a file copied to the drive that a boot loader shows. Needs no tool at all."""

import getpass
from pathlib import Path

from strop.errors import FlashError, nearest
from strop.host.flash.base import Ability, Commands
from strop.host.flash.images import contents, uf2
from strop.host.flash.tool import Tool, beside

FAMILIES = {
    "rp2040": 0xE48BFF56, "rp2350-arm-s": 0xE48BFF59, "rp2350-riscv": 0xE48BFF5A, "nrf52840": 0xADA52840,
}  # fmt: skip
"""Chips by family id (microsoft/uf2, utils/uf2families.json)."""
MOUNTS = Path("/proc/mounts")
MARK = "INFO_UF2.TXT"
"""The file that every such drive has."""


class Uf2(Tool):
    """Entry: ``target``, a family's name; ``config``, the drive's label, if not `RP2350`."""

    name = "uf2"
    binary = "cp"
    get = "sudo apt-get install coreutils"
    hint = "Check that the drive is still there, and writable"
    abilities = frozenset({Ability.FLASH, Ability.DRY_RUN})

    def flashing(self, elf: Path) -> Commands:
        """Copy the file; the boot loader writes it and starts it."""
        image = beside(elf, ".uf2", uf2(contents(elf, self.board), family(self)))
        return [[self.program, str(image), f"{self._drive()}/"]]

    def _run(self, commands: Commands) -> None:
        if not drives():
            raise FlashError("no drive of a UF2 boot loader is mounted", do="Hold BOOTSEL while plugging the board in")
        super()._run(commands)

    def _drive(self) -> Path:
        """The drive that is mounted, or where it will be."""
        found = drives()
        if len(found) > 1:
            listed = ", ".join(map(str, found))
            raise FlashError(f"there are {len(found)} UF2 drives: {listed}", do="Unplug all but one, or copy by hand")
        return found[0] if found else Path("/media") / getpass.getuser() / (self.entry.config or "RP2350")


def family(tool: Tool) -> int:
    """Family id of the chip that a tool's entry names as its target."""
    chip = tool.required("target")
    if chip not in FAMILIES:
        what = f"no UF2 family is called {chip!r}"
        raise FlashError(what, where=str(tool.board.path), do=nearest(chip, FAMILIES))
    return FAMILIES[chip]


def drives(mounts: Path | None = None) -> list[Path]:
    """Mounted drives of boot loaders, by the file that marks them."""
    try:
        lines = (mounts or MOUNTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    places = [Path(line.split(" ")[1].replace("\\040", " ")) for line in lines]
    return sorted({place for place in places if (place / MARK).is_file()})


claims, open_runner = Uf2.claims, Uf2
