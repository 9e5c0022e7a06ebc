"""Train on an emulated microcontroller, and take the weights back into PyTorch.

    python examples/train_on_board.py               # a RISC-V core with FPU
    python examples/train_on_board.py host          # the same C on this computer: the same bits
"""

import sys

import torch
from torch import nn

import strop
from strop.host.data import Signature, load_data

board = sys.argv[1] if len(sys.argv) > 1 else "qemu-rv32imf"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

bundle = strop.build(
    model, torch.zeros(1, 64), rule=strop.rules.TpSGD(), optimizer=strop.optim.SGD(lr=0.03), board=board, name="digits"
)
digits = load_data("digits", Signature.of(bundle.manifest))

with strop.connect(bundle) as device:
    losses = device.train(digits.x, digits.y)
    print(f"{device.name}: loss {losses[:100].mean():.3f} -> {losses[-100:].mean():.3f}")
    print(f"held-out digits recognised: {device.evaluate(digits.x_test, digits.y_test):.1%}")
    model.load_state_dict(device.state_dict())

with torch.no_grad():
    right = model(torch.from_numpy(digits.x_test)).argmax(dim=1).numpy() == digits.y_test
print(f"the same weights in PyTorch: {right.mean():.1%}")
