"""What the example of an exported library says: by the twin, and on an emulated board."""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import strop
from strop.compiler.bundle import Bundle
from strop.host.flash import runner_for
from strop.host.transport import transport_for
from strop.host.zoo import load_model
from strop.targets.board import load_board

ROUND = 20
"""Steps of a round of the example."""


def samples(steps: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """What sample.c of a network with 64 inputs and 10 classes gives."""
    noise, state = np.empty(steps * 64, np.float32), 1
    for i in range(len(noise)):
        state = (state * 1664525 + 1013904223) % 2**32
        noise[i] = np.float32(state >> 8) * np.float32(2**-24)
    kinds = np.arange(steps, dtype=np.int32) % 10
    ones = (np.arange(64)[None] % 10 == kinds[:, None]).astype(np.float32)
    return ones + np.float32(0.25) * noise.reshape(steps, 64), kinds


def expected_lines(bundle: Bundle, rounds: int) -> list[str]:
    """What the example says, by the twin."""
    x, y = samples(rounds * ROUND)
    device, lines = bundle.twin(), ["begins at step 0"]
    for step in range(0, len(x), ROUND):
        total, right = np.float32(0), 0
        for i in range(step, step + ROUND):
            right += 100 * int(device.infer(x[i : i + 1]).argmax() == y[i])
            total += np.float32(device.train_step(x[i : i + 1], y[i : i + 1]))
        loss = int(total / np.float32(ROUND) * np.float32(1000))
        percent = right // ROUND
        lines.append(f"step {step + ROUND}: loss {loss // 1000}.{loss % 1000:03}, {percent} % right, saved")
    return lines


def bundle_for(board: str) -> Bundle:
    name, model, example = load_model("mlp-64-32-10")
    return strop.build(model, example, name=name, rule="tpsgd", optimizer=strop.optim.SGD(lr=0.05), board=board)


def lines_of(elf: Path, board: str, count: int) -> list[str]:
    """The first lines of a program that says one for each byte; one that comes too early may be lost."""
    with runner_for(load_board(board)).start(elf) as running:
        port, said, end = transport_for(running.endpoint), b"", time.monotonic() + 60
        port.open()
        while (done := said.count(b"\n")) < count and time.monotonic() < end:
            port.write(b"\n")
            until = time.monotonic() + 3
            while said.count(b"\n") == done and time.monotonic() < until:
                said += port.read(0.2)
        port.close()
    return said.decode().splitlines()[:count]
