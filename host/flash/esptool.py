"""esptool (docs.espressif.com/projects/esptool): Espressif's chips, over their serial port."""

from pathlib import Path

from strop.host.flash.base import Ability, Commands
from strop.host.flash.images import binary, contents
from strop.host.flash.tool import Tool, beside


class EspTool(Tool):
    """Entry: ``chip`` (`esp32c3`), and ``base``, the offset in flash, 0x0 if not given.

    With ``format = "bin"`` a plain binary is written; otherwise esptool makes the image that the boot ROM loads.
    The port tells one board from another.
    """

    name = "esptool"
    binary = "esptool"
    get = "pip install esptool, version 5 or later"
    hint = "Check cable and port; hold BOOT while pressing RESET if the chip does not answer"
    abilities = frozenset(Ability)

    def flashing(self, elf: Path) -> Commands:
        """Make the image, write it with its checksum compared, and reset."""
        image = elf.with_suffix(".bin")
        write = self._with("write-flash", self.entry.base or "0x0", str(image))
        if self.entry.format == "bin":
            beside(elf, ".bin", binary(contents(elf, self.board))[1])
            return [write]
        chip = ["--chip", self.required("chip")]
        return [[self.program, *chip, "elf2image", "--flash-mode", "dio", "--output", str(image), str(elf)], write]

    def erasing(self) -> Commands:
        """Clear the chip's flash."""
        return [self._with("erase-flash")]

    def resetting(self) -> Commands:
        """Ask for something, and reset afterwards, as it always does."""
        return [self._with("--after", "hard-reset", "read-mac")]

    def _with(self, *words: str) -> list[str]:
        port = ["--port", self.instance.serial] if self.instance.serial else []
        return [self.program, "--chip", self.required("chip"), *port, *words]


claims, open_runner = EspTool.claims, EspTool
