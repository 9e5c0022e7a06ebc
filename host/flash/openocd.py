"""OpenOCD (openocd.org): most debug probes, most chips. Options: its manual, section "program"."""

from pathlib import Path

from strop.host.flash.base import Ability, Commands
from strop.host.flash.images import binary, contents
from strop.host.flash.tool import Tool, beside


class OpenOcd(Tool):
    """Entry: ``config``, a board's file (`board/st_nucleo_f4.cfg`), or else ``interface`` and ``target``.

    With ``format = "bin"``, a plain binary is written to ``base``.
    """

    name = "openocd"
    binary = "openocd"
    get = "sudo apt-get install openocd"
    hint = "Check cable, power and probe; where it does not know the chip, a newer OpenOCD or its maker's may"
    abilities = frozenset(Ability)

    def flashing(self, elf: Path) -> Commands:
        """``program`` halts, erases what it writes, writes, and compares."""
        if self.entry.format == "bin":
            image = beside(elf, ".bin", binary(contents(elf, self.board))[1])
            return self._with(f"program {{{image}}} {self.required('base')} verify reset exit")
        return self._with(f"program {{{elf}}} verify reset exit")

    def erasing(self) -> Commands:
        """All sectors of the first bank."""
        return self._with("init; reset halt; flash erase_sector 0 0 last; shutdown")

    def resetting(self) -> Commands:
        """Restart, and let it run."""
        return self._with("init; reset run; shutdown")

    def _with(self, script: str) -> Commands:
        files = [self.entry.config] if self.entry.config else [
            f"interface/{self.required('interface').removesuffix('.cfg').removeprefix('interface/')}.cfg",
            f"target/{self.required('target').removesuffix('.cfg').removeprefix('target/')}.cfg",
        ]  # fmt: skip
        probe = ["-c", f"adapter serial {self.probe}"] if self.probe else []
        return [[self.program, *(word for file in files for word in ("-f", file)), *probe, "-c", script]]


claims, open_runner = OpenOcd.claims, OpenOcd
