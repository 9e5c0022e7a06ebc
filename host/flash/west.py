"""west (docs.zephyrproject.org): the runner that Zephyr knows for a board, in a Zephyr workspace."""

from pathlib import Path

from strop.host.flash.base import Ability, Commands
from strop.host.flash.tool import Tool


class West(Tool):
    """Entry: ``config``, the build folder of any Zephyr application for the board; ``interface``, west's own runner."""

    name = "west"
    binary = "west"
    get = "pip install west, and see https://docs.zephyrproject.org/latest/develop/getting_started/"
    hint = "Build any application for the board first: west build -b <board> samples/hello_world"
    abilities = frozenset({Ability.FLASH, Ability.ID, Ability.DRY_RUN})

    def flashing(self, elf: Path) -> Commands:
        """West's runner with our program in place of the application's."""
        runner = ["--runner", self.entry.interface] if self.entry.interface else []
        probe = ["--dev-id", self.probe] if self.probe else []
        folder = ["--build-dir", self.entry.config or "build"]
        return [[self.program, "flash", *folder, "--skip-rebuild", *runner, "--elf-file", str(elf), *probe]]


claims, open_runner = West.claims, West
