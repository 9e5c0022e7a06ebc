"""The linker script of a board, from ``firmware/link.ld.in`` and the board's memory regions."""

from pathlib import Path

from strop import firmware
from strop.targets.board import Board

TEMPLATE = Path(firmware.__file__).parent / "link.ld.in"


def linker_script(board: Board) -> str:
    """Return the script; raises BoardError for the PC."""
    flash, ram = board.memory
    values = {
        "BOARD": board.name,
        "FLASH_ORIGIN": f"{flash.origin:#010x}",
        "FLASH_LENGTH": f"{flash.length:#x}",
        "RAM_ORIGIN": f"{ram.origin:#010x}",
        "RAM_LENGTH": f"{ram.length:#x}",
        "STACK_RESERVE": f"{board.stack_reserve}",
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
