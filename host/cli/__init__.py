"""The command line: `strop VERB …`. One file a family of verbs; `options.py` and `command.py` are what they share."""

import sys

from strop.host.cli import boards as boards
from strop.host.cli import building as building
from strop.host.cli import checking as checking
from strop.host.cli import checkpoints as checkpoints
from strop.host.cli import device as device
from strop.host.cli import exporting as exporting
from strop.host.cli import flashing as flashing
from strop.host.cli import monitoring as monitoring
from strop.host.cli import reporting as reporting
from strop.host.cli import rules as rules
from strop.host.cli import training as training
from strop.host.cli import tuning as tuning
from strop.host.cli.command import run


def main() -> int:
    """Run the command line of this process; returns its exit status."""
    return run(sys.argv[1:])
