"""strop: a neural network and a learning rule become a C program that trains on a microcontroller.

bundle = strop.build(model, example_input, loss="cross_entropy", rule=strop.rules.TpSGD(), board="host")
device = bundle.twin()                     # or strop.connect(bundle, board="qemu-rv32imf")
loss = device.train_step(x, y)
model.load_state_dict(device.state_dict())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from strop.errors import StropError as StropError

if TYPE_CHECKING:
    from strop.compiler import optim as optim
    from strop.compiler import rules as rules
    from strop.compiler.adaptation import Replay as Replay
    from strop.compiler.bundle import Bundle as Bundle
    from strop.compiler.pipeline import build as build
    from strop.host.device import Device as Device
    from strop.host.device import connect as connect
    from strop.host.hil import assert_same_bits as assert_same_bits

pytest_plugins = ("strop.host.pytest_plugin",)
"""What `pytest -p strop` loads where the package runs from its sources, without the entry point of an installation."""

_PLACES = {
    "build": ("strop.compiler.pipeline", "build"),
    "Replay": ("strop.compiler.adaptation", "Replay"),
    "Bundle": ("strop.compiler.bundle", "Bundle"),
    "rules": ("strop.compiler.rules", ""),
    "optim": ("strop.compiler.optim", ""),
    "connect": ("strop.host.device", "connect"),
    "Device": ("strop.host.device", "Device"),
    "assert_same_bits": ("strop.host.hil", "assert_same_bits"),
}


def __getattr__(name: str) -> Any:
    """Import on first use: a command that only lists boards should not wait for torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'strop' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
