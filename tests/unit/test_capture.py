"""PyTorch models become Programs that compute the same, keep their names, and are refused with a clear sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from strop.compiler.capture import capture
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Program, Role
from strop.compiler.verify import verify
from strop.errors import CaptureError


class Lambda(nn.Module):
    """A forward given as a function of the module and its input, over some layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def drawn(model: nn.Module) -> nn.Module:
    """Random weights and, for batch normalisation, random statistics."""
    torch.manual_seed(1)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data.normal_()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_var.uniform_(0.5, 2)
    return model


def agreement(model: nn.Module, *sample: int, batch: int) -> float:
    """Largest difference between the Program in float64 and the model in float64."""
    program = verify(capture(model, torch.zeros(1, *sample), batch=batch))
    x = np.random.default_rng(0).standard_normal((batch, *sample))
    with torch.no_grad():
        expected = model.double().eval()(torch.tensor(x)).numpy()
    found = Interpreter(program).infer(x)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def residual(self: nn.Module, x: Tensor) -> Tensor:
    y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
    y = self.bn2(self.conv2(y))
    y += self.shortcut(x)
    return y.relu_().mean((2, 3))


def pieces(_: nn.Module, x: Tensor) -> Tensor:
    a, b, c = x.chunk(3, 1)
    d, e = x.split([2, 5], 1)
    f = x.unbind(1)
    parts = [
        a - b,
        c[:, :1],
        d * e[:, -2:],
        x[:, 1:-2],
        x.narrow(1, 3, 2),
        x[:, 4].unsqueeze(1),
        x.select(2, -1)[:, :, None],
    ]
    return torch.cat([p.flatten(1) for p in (*parts, f[0], f[6], torch.stack([f[1], f[2]], 1))], -1)


def written_through_a_view(self: nn.Module, x: Tensor) -> Tensor:
    y = self.fc(x)
    y.view(len(y), 2, 2).relu_()
    return y


LAYERS = {
    "linear": (nn.Linear(7, 5), 7),
    "linear-without-bias": (nn.Linear(7, 5, bias=False), 7),
    "conv": (nn.Conv2d(3, 5, (3, 2)), 3, 7, 6),
    "conv-stride-padding": (nn.Conv2d(3, 4, (3, 5), (2, 3), padding=(1, 2), bias=False), 3, 9, 11),
    "conv-groups": (nn.Conv2d(4, 6, 3, (2, 1), 1, groups=2), 4, 7, 9),
    "conv-depthwise": (nn.Conv2d(5, 5, 3, padding=1, groups=5), 5, 7, 6),
    "conv-same": (nn.Conv2d(2, 3, (5, 3), padding="same"), 2, 6, 7),
    "conv-valid": (nn.Conv2d(2, 3, 3, padding="valid"), 2, 6, 7),
    "relu": (nn.ReLU(), 11),
    "relu-in-place": (nn.ReLU(inplace=True), 3, 5, 4),
    "leaky-relu": (nn.LeakyReLU(0.1), 11),
    "relu6": (nn.Sequential(nn.Linear(7, 9), nn.ReLU6()), 7),
    "hardtanh": (nn.Sequential(nn.Linear(7, 9), nn.Hardtanh(0, 6)), 7),
    "functional": (Lambda(lambda _, x: functional.relu6(x.tanh() + torch.sigmoid(x))), 11),
    "max-pool": (nn.MaxPool2d(2), 3, 7, 6),
    "max-pool-overlap": (nn.MaxPool2d((3, 2), (2, 1), (1, 1)), 3, 7, 6),
    "functional-max-pool": (Lambda(lambda _, x: functional.max_pool2d(x, 3)), 3, 7, 6),
    "avg-pool": (nn.AvgPool2d(3, 2, padding=1), 3, 7, 6),
    "avg-pool-uncounted": (nn.AvgPool2d(2, count_include_pad=False), 3, 7, 6),
    "global-pool": (nn.AdaptiveAvgPool2d(1), 3, 7, 5),
    "grid-pool": (nn.AdaptiveAvgPool2d((2, 3)), 3, 4, 9),
    "mean": (Lambda(lambda _, x: x.mean((-1, -2))), 3, 4, 9),
    "mean-keep": (Lambda(lambda _, x: x.mean((2, 3), keepdim=True)), 3, 4, 9),
    "batch-norm-1d": (nn.BatchNorm1d(5), 5),
    "batch-norm-2d": (nn.BatchNorm2d(3, eps=1e-3), 3, 4, 5),
    "batch-norm-plain": (nn.BatchNorm2d(3, affine=False), 3, 4, 5),
    "conv-1d": (nn.Conv1d(3, 5, 4), 3, 9),
    "conv-1d-stride-padding": (nn.Conv1d(4, 6, 3, 2, padding=1, groups=2, bias=False), 4, 9),
    "conv-1d-same": (nn.Conv1d(2, 3, 5, padding="same"), 2, 7),
    "max-pool-1d": (nn.MaxPool1d(3, 2, padding=1), 3, 11),
    "avg-pool-1d": (nn.AvgPool1d(3, padding=1), 3, 11),
    "grid-pool-1d": (nn.AdaptiveAvgPool1d(4), 3, 11),
    "global-pool-1d": (nn.AdaptiveAvgPool1d(1), 3, 11),
    "signal": (
        nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 6, 2), nn.GroupNorm(2, 6),
            nn.LeakyReLU(0.1, inplace=True), nn.LayerNorm(3), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(6, 3),
        ), 3, 10,
    ),
    "batch-norm-signal": (nn.BatchNorm1d(3), 3, 7),
    "uneven-grid": (nn.AdaptiveAvgPool2d((2, 4)), 2, 5, 3),
    "mean-of-signal": (Lambda(lambda _, x: x.mean(-1)), 3, 7),
    "mean-of-channels": (Lambda(lambda _, x: x.mean(1)), 3, 4, 5),
    "mean-of-all": (Lambda(lambda _, x: x.mean((1, 2, 3), keepdim=True)), 3, 4, 5),
    "layer-norm": (nn.LayerNorm(7), 7),
    "layer-norm-trailing": (nn.LayerNorm((4, 5), eps=1e-3), 3, 4, 5),
    "layer-norm-without-bias": (nn.LayerNorm(5, bias=False), 3, 5),
    "layer-norm-plain": (nn.Sequential(*(nn.LayerNorm(5, elementwise_affine=False) for _ in "ab")), 3, 5),
    "layer-norm-functions": (Lambda(lambda _, x: functional.layer_norm(functional.layer_norm(x, (3, 5)), (5,))), 3, 5),
    "group-norm": (nn.GroupNorm(2, 6), 6, 3, 5),
    "group-norm-of-rows": (nn.GroupNorm(3, 6), 6),
    "instance-norm": (nn.InstanceNorm2d(3, affine=True), 3, 4, 5),
    "softmax": (nn.Softmax(-1), 3, 5),
    "softmax-of-rows": (nn.Sequential(nn.Linear(4, 5), nn.Softmax(dim=1), nn.LogSoftmax(1)), 4),
    "pieces": (Lambda(pieces), 7, 3),
    "many-parts": (Lambda(lambda _, x: torch.cat([x] * 19, 1)), 2),
    "product": (Lambda(lambda _, x: (x * x - x).sub(torch.tanh(x))), 5),
    "flatten": (nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(24, 3)), 2, 3, 4),
    "reshapes": (Lambda(lambda _, x: x.view(len(x), 4, 6).reshape(len(x), -1).clone() + x.flatten(1)), 2, 3, 4),
    "residual": (
        Lambda(
            residual,
            conv1=nn.Conv2d(3, 4, 3, 2, 1), bn1=nn.BatchNorm2d(4), conv2=nn.Conv2d(4, 4, 3, padding=1),
            bn2=nn.BatchNorm2d(4), shortcut=nn.Conv2d(3, 4, 1, 2),
        ), 3, 7, 5,
    ),
    "written-through-a-view": (Lambda(written_through_a_view, fc=nn.Linear(6, 4)), 6),
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same(name, batch):
    model, *sample = LAYERS[name]
    tolerance = 1e-5 if any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in model.modules()) else 1e-12
    assert agreement(drawn(model.float()), *sample, batch=batch) <= tolerance


@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_an_embedding_reads_whole_numbers(kind):
    model = Lambda(lambda self, x: self.fc(self.e(x.to(kind)).mean(1)), e=nn.Embedding(9, 4), fc=nn.Linear(4, 3))
    program = verify(capture(model, torch.zeros(1, 6), batch=2))
    assert names(program, Role.PARAM) == ["e.weight", "fc.weight", "fc.bias"]
    x = np.random.default_rng(0).integers(0, 9, (2, 6))
    with torch.no_grad():
        expected = model.double()(torch.tensor(x))
    np.testing.assert_allclose(Interpreter(program).infer(x), expected, atol=1e-12)


def names(program: Program, role: Role) -> list[str]:
    return [value.name for value in program.of(role)]


def test_names_roles_and_locations():
    head = (nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), *head)
    program = capture(model, torch.zeros(1, 1, 6, 6), name="net", batch=2)
    assert program.name == "net"
    assert names(program, Role.PARAM) == list(dict(model.named_parameters()))
    assert names(program, Role.CONST) == ["1.running_mean", "1.inv_std"]
    assert names(program, Role.ACT) == ["0", "1", "2", "3", "3.index", "4", "5"]
    assert program.output == "5"
    assert program.only(Role.INPUT).shape == (2, 1, 6, 6)
    assert [op.loc for op in program.infer][:2] == ["0 (Conv2d)", "1 (BatchNorm2d)"]
    for name, parameter in model.named_parameters():
        assert np.array_equal(program.initial[name], parameter.detach().numpy())


def test_functions_are_named_after_their_module_and_op():
    block = Lambda(lambda self, x: torch.relu(self.fc(x) + x), fc=nn.Linear(4, 4))
    program = capture(Lambda(lambda self, x: torch.relu(self.block(x)), block=block), torch.zeros(1, 4))
    assert [op.outputs[0] for op in program.infer] == ["block.fc", "block.add", "block.relu", "relu"]
    assert program.infer[1].loc == "add in block (Lambda)"


def test_layers_called_x_and_y_keep_clear_of_input_and_label():
    model = Lambda(lambda self, x: self.y(self.x(x)), x=nn.Linear(4, 4), y=nn.Linear(4, 4))
    assert names(capture(model, torch.zeros(1, 4)), Role.ACT) == ["x.out", "y.out"]


def test_a_model_that_is_one_layer():
    assert capture(nn.Linear(3, 2), torch.zeros(1, 3)).output == "dense"


def test_tied_weights_and_shared_layers_are_one_parameter():
    model = Lambda(lambda self, x: self.b(self.b(self.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    model.b.weight = model.a.weight
    program = capture(model, torch.zeros(1, 4))
    assert names(program, Role.PARAM) == ["a.weight", "a.bias", "b.bias"]
    assert agreement(drawn(model), 4, batch=2) <= 1e-12


def test_what_needs_no_gradient_is_constant():
    model = Lambda(lambda self, x: functional.linear(self.fc(x), self.projection), fc=nn.Linear(4, 3))
    model.register_buffer("projection", torch.ones(2, 3), persistent=False)
    model.fc.weight.requires_grad_(False)
    program = capture(model, torch.zeros(1, 4))
    assert names(program, Role.CONST) == ["fc.weight", "projection"]
    assert names(program, Role.PARAM) == ["fc.bias"]


def test_inverse_deviation_is_rounded_once():
    layer = drawn(nn.BatchNorm1d(50))
    exact = 1 / np.sqrt(layer.running_var.numpy().astype(np.float64) + layer.eps)
    found = capture(layer, torch.zeros(1, 50)).initial["inv_std"]
    assert np.array_equal(found, exact.astype(np.float32))


def test_unused_layers_and_dead_branches_vanish():
    model = Lambda(lambda self, x: (torch.tanh(self.a(x)), self.b(x))[1], a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    program = capture(model, torch.zeros(1, 4))
    assert names(program, Role.PARAM) == ["b.weight", "b.bias"]
    assert len(program.infer) == 1


def test_reshapes_merge():
    model = Lambda(lambda _, x: torch.relu(x).view(1, 4, 3).flatten(1).view(1, 2, 6))
    kinds = [op.kind for op in capture(model, torch.zeros(1, 12)).infer]
    assert kinds == ["relu", "reshape"]


def test_the_model_and_the_example_are_left_as_they_were():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm1d(4), nn.Dropout())
    model[1].eval()
    example, statistics = -torch.ones(3, 4), model[1].running_mean.clone()
    program = capture(model, example, batch=5)
    assert [layer.training for layer in model.modules()] == [True, True, False, True]
    assert torch.equal(example, -torch.ones(3, 4)) and torch.equal(model[1].running_mean, statistics)
    model[1].weight.data.zero_()
    assert program.initial["1.weight"].all()


def test_capture_is_repeatable():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    assert capture(model, torch.zeros(1, 5)).hash == capture(model, torch.ones(2, 5)).hash


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else torch.relu(x)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = torch.relu(x)
        return torch.tanh(y)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return torch.relu(x)


def doubled(model: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), model, nn.Linear(4, 4))


def with_parameter(forward, *shape: int) -> nn.Module:
    model = Lambda(forward)
    model.p = nn.Parameter(torch.ones(shape))
    return model


REFUSED = {
    "unknown layer": (
        doubled(nn.GELU()), (4,), ["1 (GELU) is not supported", "gelu, op 2 of 3", "ReLU or Tanh", "Conv2d"],
    ),
    "unknown function": (
        Lambda(lambda _, x: x / x), (4,), ["div in Lambda", "op 1 of 1", f"{Path(__file__).name}:", "Linear"],
    ),
    "scaled": (Lambda(lambda _, x: x * 2), (4,), ["mul in Lambda", "plain product", "weights"]),
    "softmax of channels": (nn.Softmax(1), (4, 5), ["Softmax", "axis 1 of (1, 4, 5)", "dim=-1"]),
    "signal without channels": (nn.Conv1d(1, 1, 3), (9,), ["(1, 9)", "(batch, channels, length)"]),
    "dilated signal": (nn.Conv1d(1, 1, 3, dilation=2), (1, 9), ["Conv1d", "dilation=1"]),
    "norm of the batch": (nn.LayerNorm((1, 4)), (4,), ["LayerNorm", "batch"]),
    "running instances": (nn.InstanceNorm1d(3, track_running_stats=True), (3, 4), ["running statistics", "BatchNorm"]),
    "row that rests": (
        Lambda(lambda self, x: self.e(x.long()), e=nn.Embedding(4, 2, 0)), (3,), ["e (Embedding)", "padding_idx"],
    ),
    "whole numbers": (Lambda(lambda _, x: x.long() + x.long()), (4,), ["converts to int64", "Embedding"]),
    "joined samples": (Lambda(lambda _, x: torch.cat([x, x])), (4,), ["cat in Lambda", "samples", "dim=1"]),
    "joined parameter": (with_parameter(lambda self, x: torch.cat([x, self.p], 1), 1, 4), (4,), ["joins a parameter"]),
    "strided slice": (Lambda(lambda _, x: x[:, ::2]), (4,), ["every 2th place", "stride"]),
    "one sample": (Lambda(lambda _, x: x[:1, :] + x.narrow(0, 0, 1)), (4,), ["samples", "dim=1"]),
    "steps first": (Lambda(lambda self, x: self.r(x)[0], r=nn.LSTM(4, 4)), (3, 4), ["r (LSTM)", "batch_first=True"]),
    "conv transpose": (nn.ConvTranspose2d(1, 1, 3), (1, 5, 5), ["ConvTranspose2d"]),
    "dilation": (nn.Conv2d(1, 1, 3, dilation=2), (1, 9, 9), ["dilation", "dilation=1"]),
    "even same": (nn.Conv2d(1, 1, 2, padding="same"), (1, 9, 9), ["'same'", "(2, 2)", "odd kernel"]),
    "reflection": (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), (1, 9, 9), ["Conv2d", "padding"]),
    "image without channels": (nn.Conv2d(1, 1, 3), (9, 9), ["(1, 9, 9)", "(batch, channels, height, width)"]),
    "linear on images": (nn.Linear(4, 4), (2, 3, 4), ["(1, 2, 3, 4)", "(batch, features)"]),
    "dilated pool": (nn.MaxPool2d(2, dilation=2), (1, 9, 9), ["dilation"]),
    "ceil mode": (nn.MaxPool2d(2, ceil_mode=True), (1, 9, 9), ["ceil_mode"]),
    "large window": (nn.MaxPool2d(17), (1, 17, 17), ["(17, 17)", "256"]),
    "uncounted padding": (nn.AvgPool2d(3, padding=1, count_include_pad=False), (1, 9, 9), ["count_include_pad"]),
    "divisor": (nn.AvgPool2d(3, divisor_override=2), (1, 9, 9), ["divisor"]),
    "mean of ends": (Lambda(lambda _, x: x.mean((1, 3))), (3, 4, 4), ["axes [1, 3]", "(2, 3)"]),
    "mean of samples": (Lambda(lambda _, x: x.mean()), (3, 4), ["axes [0, 1, 2]", "(2, 3)"]),
    "slope": (nn.LeakyReLU(-0.1), (4,), ["-0.1", "positive slope"]),
    "clip": (nn.Hardtanh(), (4,), ["(-1.0, 1.0)", "(0, 6)"]),
    "live statistics": (nn.BatchNorm2d(2, track_running_stats=False), (2, 3, 3), ["track_running_stats"]),
    "live dropout": (Lambda(lambda _, x: functional.dropout(x)), (4,), ["eval", "Dropout layer"]),
    "mixed samples": (nn.Flatten(0), (3, 4), ["(1, 3, 4) into (12,)", "batch axis"]),
    "broadcast": (Lambda(lambda _, x: x + x.mean((2, 3), keepdim=True)), (2, 3, 3), ["(1, 2, 3, 3) and (1, 2, 1, 1)"]),
    "scaled sum": (Lambda(lambda _, x: torch.add(x, x, alpha=2)), (4,), ["plain sum"]),
    "constant sum": (Lambda(lambda _, x: x + 1), (4,), ["plain sum"]),
    "parameter as data": (with_parameter(lambda self, x: x + self.p, 1, 4), (4,), ["add in Lambda", "parameter"]),
    "computed weight": (
        with_parameter(lambda self, x: functional.linear(x, functional.relu(self.p)), 4, 4), (4,), ["relu in Lambda"],
    ),
    "reserved name": (
        Lambda(lambda self, x: functional.linear(x, self.y), y=nn.Parameter(torch.ones(4, 4))), (4,), ["'y'", "Rename"],
    ),
    "half": (nn.Linear(4, 4).half(), (4,), ["float16", "'weight'", "model.float()"]),
    "double": (nn.Linear(4, 4).double(), (4,), ["float64", "'weight'", "model.float()"]),
    "half inside": (Lambda(lambda _, x: torch.relu(x.double())), (4,), ["converts to float64"]),
    "no data": (nn.Linear(4, 4, device="meta"), (4,), ["no data", "'weight'"]),
    "lazy": (nn.LazyLinear(4), (4,), ["no data", "'weight'"]),
    "control flow": (Branches(), (4,), ["control flow depends on its data", f"{Path(__file__).name}:"]),
    "dynamic shape": (Lambda(lambda _, x: torch.nonzero(x)), (4,), ["nonzero", "shape that depends on data"]),
    "no gradient": (Detached(), (4,), ["set_grad_enabled", "freeze list"]),
    "detached": (Lambda(lambda _, x: torch.relu(x).detach()), (4,), ["detach in Lambda", "freeze list"]),
    "side effect": (Counter(), (4,), ["changes its own buffer", "'count'"]),
    "two inputs": (Lambda(None), (4,), ["fails on an example"]),
    "tuple": (Lambda(lambda _, x: (x,)), (4,), ["returns a tuple"]),
    "nothing": (nn.Identity(), (4,), ["returns its input"]),
    "wrong size": (doubled(nn.Linear(5, 4)), (4,), ["fails on an example of shape (1, 4)", "1 (Linear)"]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_layer_place_and_alternative(case, capfd):
    model, sample, words = REFUSED[case]
    with pytest.raises(CaptureError) as caught:
        capture(model, torch.zeros(1, *sample))
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text
    assert caught.value.do and "\n" not in text
    assert capfd.readouterr() == ("", "")


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return x + z


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((TwoInputs(), torch.zeros(1, 4)), "'z'"),
        ((nn.ReLU(), torch.zeros(4)), "unsqueeze(0)"),
        ((nn.ReLU(), torch.zeros(0, 4)), "(0, 4)"),
        ((nn.ReLU(), torch.zeros(1, 4).double()), "float64"),
        ((nn.Embedding(4, 2), torch.zeros(1, 4, dtype=torch.int64)), "int64"),
        ((nn.ReLU(), [0.0]), "list"),
        ((torch.relu, torch.zeros(1, 4)), "torch.nn.Module"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, word):
    with pytest.raises(CaptureError, match=r".") as caught:
        capture(*arguments)
    assert word in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_must_be_finite(value):
    model = nn.Linear(4, 2)
    model.weight.data[1, 2] = value
    with pytest.raises(CaptureError, match=r"NaN or infinite \(tensor 'weight'\)"):
        capture(model, torch.zeros(1, 4))


def test_the_batch_must_be_positive():
    with pytest.raises(CaptureError, match="batch size is 0"):
        capture(nn.ReLU(), torch.zeros(1, 4), batch=0)
