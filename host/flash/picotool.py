"""picotool (github.com/raspberrypi/picotool): RP2040 and RP2350 in BOOTSEL mode, over USB."""

from pathlib import Path

from strop.host.flash.base import Ability, Commands
from strop.host.flash.images import contents, uf2
from strop.host.flash.tool import Tool, beside
from strop.host.flash.uf2 import family


class PicoTool(Tool):
    """Entry: with ``format = "uf2"``, a UF2 file for the family ``target``; otherwise the program itself.

    The serial number is the chip's own, as its boot ROM gives it.
    """

    name = "picotool"
    binary = "picotool"
    get = "sudo apt-get install picotool, or see https://github.com/raspberrypi/picotool/releases"
    hint = "Hold BOOTSEL while plugging the board in"
    abilities = frozenset(Ability)

    def flashing(self, elf: Path) -> Commands:
        """Write, compare, and start the program."""
        image, kind = elf, "elf"
        if self.entry.format == "uf2":
            image, kind = beside(elf, ".uf2", uf2(contents(elf, self.board), family(self))), "uf2"
        return [[self.program, "load", "--verify", "--execute", str(image), "-t", kind, *self._selected()]]

    def erasing(self) -> Commands:
        """Clear the flash."""
        return [[self.program, "erase", "--all", *self._selected()]]

    def resetting(self) -> Commands:
        """Leave BOOTSEL mode for the program."""
        return [[self.program, "reboot", *self._selected()]]

    def _selected(self) -> list[str]:
        return ["--ser", self.probe] if self.probe else []


claims, open_runner = PicoTool.claims, PicoTool
