"""What PyTorch keeps in memory for the same training step, and how long it takes on this PC with one thread."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from strop.host.zoo import MODELS

ROUNDS = 20


def row(net: str) -> dict[str, Any]:
    """Bytes of parameters, gradients and what autograd saves between forward and backward; median time of a step."""
    model, example = MODELS[net]()
    x = torch.from_numpy(np.random.default_rng(0).random(example.shape).astype(np.float32))
    parameters = sum(4 * parameter.numel() for parameter in model.parameters())
    return {
        "net": net, "params": parameters, "gradients": parameters, "saved": _saved_bytes(model, x),
        "milliseconds": round(_median_ms(model, x), 2),
    }  # fmt: skip


def _loss(model: nn.Module, x: Tensor) -> Tensor:
    output = model(x)
    return nn.functional.mse_loss(output, x) if output.shape == x.shape else nn.functional.cross_entropy(output, ONE)


ONE = torch.ones(1, dtype=torch.int64)


def _saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of the distinct tensors that autograd keeps for the backward pass, without parameters and buffers."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _loss(model, x).backward()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def _median_ms(model: nn.Module, x: Tensor) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        optimizer.zero_grad()
        _loss(model, x).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))
