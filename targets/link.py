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
        **_constants(board),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _constants(board: Board) -> dict[str, str]:
    """Where constants lie: in flash like code or, on a core that reads it through another bus, in that bus's view."""
    if board.data_bus is None:
        return {"DATA_BUS": "", "CODE_PADDING": "", "CONSTANTS_AT": "", "CONSTANTS": "FLASH", "IMAGE_SHIFT": ""}
    return {
        "DATA_BUS": f"DATA (r) : ORIGIN = {board.data_bus:#010x}, LENGTH = {board.memory[0].length:#x}",
        "CODE_PADDING": ". = ALIGN(16);",
        "CONSTANTS_AT": "ORIGIN(DATA) + SIZEOF(.text)",
        "CONSTANTS": "DATA AT > FLASH",
        "IMAGE_SHIFT": " - ORIGIN(FLASH) + ORIGIN(DATA)",
    }
