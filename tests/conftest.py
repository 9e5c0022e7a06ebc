"""Makes `cases` (test cases) and `cbuild` (compiles C) importable from every folder of tests."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "native")]
