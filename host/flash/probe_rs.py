"""probe-rs (probe.rs): Arm and RISC-V cores behind CMSIS-DAP, ST-Link, J-Link and ESP's own USB."""

from pathlib import Path

from strop.errors import FlashError
from strop.host.flash.base import Ability, Commands
from strop.host.flash.tool import Tool
from strop.host.instances import usb_id_of


class ProbeRs(Tool):
    """Entry: ``chip``, as ``probe-rs chip list`` spells it."""

    name = "probe-rs"
    binary = "probe-rs"
    get = "cargo install probe-rs-tools --locked, or see https://probe.rs/docs/getting-started/installation/"
    hint = "Check cable and probe with: probe-rs list"
    abilities = frozenset(Ability)

    def flashing(self, elf: Path) -> Commands:
        """Write and compare; the core stays halted, so reset it."""
        return [*self._with("download", "--verify", str(elf)), *self.resetting()]

    def erasing(self) -> Commands:
        """Clear the chip."""
        return self._with("erase")

    def resetting(self) -> Commands:
        """Restart, and let it run."""
        return self._with("reset")

    def _with(self, verb: str, *words: str) -> Commands:
        probe = ["--probe", self._selector()] if self.probe else []
        return [[self.program, verb, "--chip", self.required("chip"), *probe, *words]]

    def _selector(self) -> str:
        """VID:PID:SERIAL: probe-rs does not take a serial number alone."""
        if self.probe != self.instance.probe:
            return self.instance.probe
        ids = {f"{usb.vid:04x}:{usb.pid:04x}" for usb in self.board.usb}
        found = usb_id_of(self.probe) or (ids.pop() if len(ids) == 1 else "")
        if not found:
            raise FlashError("probe-rs needs the probe's USB ids", do="Write the id as VID:PID:SERIAL; see strop list")
        return f"{found}:{self.probe}"


claims, open_runner = ProbeRs.claims, ProbeRs
