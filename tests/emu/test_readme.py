"""The README's example, as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_twenty_lines_run(tmp_path: Path) -> None:
    code = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"accuracy on the board: ([\d.]+)", done.stdout)[1])  # type: ignore[index]
    assert accuracy > 0.75  # one epoch of tpSGD on other people's handwriting; chance is 0.1
