"""pyOCD (pyocd.io): Arm cores behind CMSIS-DAP, ST-Link and J-Link. Options: ``pyocd load --help``."""

from pathlib import Path

from strop.host.flash.base import Ability, Commands
from strop.host.flash.tool import Tool


class PyOcd(Tool):
    """Entry: ``target``, as ``pyocd list --targets`` spells it."""

    name = "pyocd"
    binary = "pyocd"
    get = "pip install pyocd"
    hint = "Check cable and probe with: pyocd list; a target that is not built in needs: pyocd pack install <target>"
    abilities = frozenset(Ability)

    def flashing(self, elf: Path) -> Commands:
        """Erase the sectors that are written, write, and reset."""
        return self._with("load", str(elf))

    def erasing(self) -> Commands:
        """Clear the chip."""
        return self._with("erase", "--chip")

    def resetting(self) -> Commands:
        """Restart, and let it run."""
        return self._with("reset")

    def _with(self, verb: str, *words: str) -> Commands:
        probe = ["--uid", self.probe] if self.probe else []
        return [[self.program, verb, "--no-wait", "--target", self.required("target"), *probe, *words]]


claims, open_runner = PyOcd.claims, PyOcd
