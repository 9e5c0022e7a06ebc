"""J-Link Commander (SEGGER UM08001, "J-Link Commander"): SEGGER's probes, by a file of commands."""

from collections.abc import Sequence
from pathlib import Path

from strop.host.flash.base import Ability, Commands
from strop.host.flash.images import contents, intel_hex
from strop.host.flash.tool import Tool, beside
from strop.targets.toolchain import cache_folder


class JLink(Tool):
    """Entry: ``device``, as SEGGER spells it (`nRF52840_xxAA`); ``interface``, SWD if not given."""

    name = "jlink"
    binary = "JLinkExe"
    get = "See https://www.segger.com/downloads/jlink/"
    abilities = frozenset(Ability)

    def flashing(self, elf: Path) -> Commands:
        """Write the program as Intel hex, which every version reads, compare, and start it."""
        image = beside(elf, ".hex", intel_hex(contents(elf, self.board)))
        return self._with(elf, ["r", f'loadfile "{image}"', "r", "g"])

    def erasing(self) -> Commands:
        """Clear the chip."""
        return self._with(self._place("erase"), ["r", "erase"])

    def resetting(self) -> Commands:
        """Restart, and let it run."""
        return self._with(self._place("reset"), ["r", "g"])

    def _with(self, stem: Path, script: Sequence[str]) -> Commands:
        file = beside(stem, ".jlink", "\n".join([*script, "exit", ""]))
        probe = ["-USB", self.probe] if self.probe else []
        return [[
            self.program, "-NoGui", "1", "-ExitOnError", "1", *probe, "-Device", self.required("device"),
            "-If", self.entry.interface or "SWD", "-Speed", "4000", "-AutoConnect", "1", "-CommandFile", str(file),
        ]]  # fmt: skip

    def _place(self, what: str) -> Path:
        folder = cache_folder() / "flash"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.board.name}-{what}"


claims, open_runner = JLink.claims, JLink
