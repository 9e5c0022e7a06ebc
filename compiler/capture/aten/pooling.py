"""Pooling windows of images and of signals, grids, and means over axes."""

from math import prod

from strop.compiler.capture.aten.signals import give, read, sizes
from strop.compiler.capture.call import Call, Handler


def _max_pool(call: Call) -> str:
    kernel = sizes(call, call.args["kernel_size"], 1)
    if sizes(call, call.args["dilation"], 1) != (1, 1):
        raise call.refusal(f"has dilation {call.args['dilation']}", do="Use dilation=1")
    if kernel[0] * kernel[1] > 256:
        raise call.refusal(f"has a window of {kernel}", do="Use windows of at most 256 elements")
    return _pool("max_pool2d_argmax", call, kernel)


def _avg_pool(call: Call) -> str:
    if call.args.get("divisor_override") is not None:
        raise call.refusal("has a divisor of its own", do="Leave divisor_override out")
    if not call.args["count_include_pad"] and any(sizes(call, call.args["padding"], 0)):
        raise call.refusal("does not count its padding", do="Use count_include_pad=True or padding=0")
    return _pool("avg_pool2d", call, sizes(call, call.args["kernel_size"], 1))


def _pool(kind: str, call: Call, kernel: tuple[int, int]) -> str:
    if call.args["ceil_mode"]:
        raise call.refusal("has ceil_mode=True", do="Use ceil_mode=False, and padding where windows must not be lost")
    stride, padding = sizes(call, call.args["stride"] or kernel, 1), sizes(call, call.args["padding"], 0)
    return give(call, call.emit(kind, [read(call, "self")], kernel=kernel, stride=stride, padding=padding))


def _adaptive_avg_pool(call: Call) -> str:
    x, grid = read(call, "self"), sizes(call, call.args["output_size"], 1)
    image = call.shape(x)[2:]
    if any(size % cells for size, cells in zip(image, grid, strict=True)):
        return give(call, call.emit("adaptive_avg_pool2d", [x], grid=grid))
    kernel = (image[0] // grid[0], image[1] // grid[1])
    return give(call, call.emit("avg_pool2d", [x], kernel=kernel, stride=kernel, padding=(0, 0)))


def _mean(call: Call) -> str:
    """Over neighbouring axes: the window is a column of an image that has these axes as its height."""
    x = call.activation("self")
    shape = call.shape(x)
    axes = sorted(axis % len(shape) for axis in call.args.get("dim") or range(len(shape)))
    if axes != list(range(axes[0], axes[-1] + 1)) or axes[0] == 0:
        raise call.refusal(
            f"takes the mean over axes {axes}", do="Take it over neighbouring axes, without the batch's, as (2, 3)"
        )
    before, over, after = shape[1 : axes[0]], shape[axes[0] : axes[-1] + 1], shape[axes[-1] + 1 :]
    image = (prod(over), prod(after)) if after else over if len(over) == 2 else (1, prod(over))
    view, kernel = (shape[0], prod(before), *image), (image[0], 1 if after else image[1])
    mean = call.emit("avg_pool2d", [call.reshape(x, view)], kernel=kernel, stride=kernel, padding=(0, 0))
    return call.reshape(mean, tuple(call.node.meta["val"].shape))


HANDLERS: dict[str, Handler] = {
    "max_pool2d": _max_pool,
    "max_pool1d": _max_pool,
    "avg_pool2d": _avg_pool,
    "avg_pool1d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool,
    "mean": _mean,
}
