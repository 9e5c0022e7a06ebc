"""Makes `cases` (test cases) and `cbuild` (compiles C) importable from every folder of tests."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # on small tensors PyTorch's threads wait for each other

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "native")]
