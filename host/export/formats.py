"""Build systems to export to. A new one is a row here and a folder in templates/, which holds its files as they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from strop.errors import UsageError, nearest


@dataclass(frozen=True)
class Format:
    """Where things go in a build system's folder.

    sources: C files and private headers.  headers: what users include.  example: the parts that are alike everywhere.
    main, flash: the example's program and its memory for checkpoints, (file, template).  use: how to build with it,
    Markdown.  contracted: whether the build system cannot be told -ffp-contract=off, so that the sources must.
    """

    name: str
    sources: str
    headers: str
    example: str
    main: tuple[str, str] | None
    flash: tuple[str, str]
    use: str
    contracted: bool = False


PC = (("main.c", "pc/main.c"), ("flash.c", "flash/flash_file.c"))
EEPROM = ("flash.cpp", "flash/flash_eeprom.cpp")

_ROWS = (
    Format(
        "c", "", "", "example/", *PC,
        "Compile all C files of this folder with yours. `make run` tries the example on this computer.",
    ),
    Format(
        "cmake", "src/", "include/", "example/", *PC,
        "`add_subdirectory` this folder, or install it (`cmake -B build && cmake --build build && cmake --install\n"
        "build`) and `find_package(strop_model)`; then `target_link_libraries(yours PRIVATE strop::model)`.\n"
        "`example/` is built with it where this is the top-level project.",
    ),
    Format(
        "arduino", "src/", "src/", "examples/Sensor/", ("Sensor.ino", "sketch/sketch.cpp"), EEPROM,
        "Copy the folder to your sketchbook's `libraries/`, or give the zip to *Sketch > Include Library > Add .ZIP\n"
        "Library*. The example is under *File > Examples*.", contracted=True,
    ),
    Format(
        "platformio", "src/", "src/", "examples/sensor/src/", ("main.cpp", "sketch/sketch.cpp"), EEPROM,
        "Copy the folder to your project's `lib/`, or name it in `lib_deps`. The example:\n"
        "`pio run -d examples/sensor`.",
    ),
    Format(
        "zephyr", "src/", "include/", "samples/sensor/src/", None, ("flash.c", "flash/flash_zephyr.c"),
        "Add the folder to `ZEPHYR_EXTRA_MODULES` (or to your manifest), and `CONFIG_STROP_MODEL=y` to `prj.conf`.\n"
        "The example: `west build -b nrf52840dk/nrf52840 samples/sensor`.",
    ),
    Format(
        "esp-idf", "src/", "include/", "examples/sensor/main/", None, ("flash.c", "flash/flash_esp.c"),
        "Copy the folder to your project's `components/`, or name it in `idf_component.yml` with its `path`. The\n"
        "example: `idf.py -C examples/sensor set-target esp32c3 build`.",
    ),
)  # fmt: skip

FORMATS: Mapping[str, Format] = {row.name: row for row in _ROWS}


def format_of(name: str) -> Format:
    """The format of a name. Raises UsageError for an unknown one."""
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}", do=nearest(name, FORMATS))
    return FORMATS[name]
