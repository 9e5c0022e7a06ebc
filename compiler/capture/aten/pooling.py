"""Pooling windows of images."""

from strop.compiler.capture.call import Call, Handler, pair


def _max_pool2d(call: Call) -> str:
    kernel = pair(call.args["kernel_size"])
    if pair(call.args["dilation"]) != (1, 1):
        raise call.refusal(f"has dilation {call.args['dilation']}", do="Use dilation=1")
    if kernel[0] * kernel[1] > 256:
        raise call.refusal(f"has a window of {kernel}", do="Use windows of at most 256 elements")
    return _pool("max_pool2d_argmax", call, kernel)


def _avg_pool2d(call: Call) -> str:
    if call.args["divisor_override"] is not None:
        raise call.refusal("has a divisor of its own", do="Leave divisor_override out")
    if not call.args["count_include_pad"] and any(pair(call.args["padding"])):
        raise call.refusal("does not count its padding", do="Use count_include_pad=True or padding=0")
    return _pool("avg_pool2d", call, pair(call.args["kernel_size"]))


def _pool(kind: str, call: Call, kernel: tuple[int, int]) -> str:
    if call.args["ceil_mode"]:
        raise call.refusal("has ceil_mode=True", do="Use ceil_mode=False, and padding where windows must not be lost")
    stride, padding = pair(call.args["stride"] or kernel), pair(call.args["padding"])
    return call.emit(kind, [call.activation("self", rank=4)], kernel=kernel, stride=stride, padding=padding)


def _adaptive_avg_pool2d(call: Call) -> str:
    x = call.activation("self", rank=4)
    image, grid = call.shape(x)[2:], pair(call.args["output_size"])
    if any(size % cells for size, cells in zip(image, grid, strict=True)):
        raise call.refusal(f"divides {image} into {grid} unequal windows", do="Use a grid that divides the image")
    kernel = (image[0] // grid[0], image[1] // grid[1])
    return call.emit("avg_pool2d", [x], kernel=kernel, stride=kernel, padding=(0, 0))


def _mean(call: Call) -> str:
    x = call.activation("self", rank=4)
    axes = {axis % 4 for axis in call.args["dim"] or range(4)}
    if axes != {2, 3}:
        raise call.refusal(f"takes the mean over axes {sorted(axes)}", do="Take it over both axes of the image, (2, 3)")
    image = call.shape(x)[2:]
    mean = call.emit("avg_pool2d", [x], kernel=image, stride=image, padding=(0, 0))
    return mean if call.args["keepdim"] else call.reshape(mean, call.shape(x)[:2])


HANDLERS: dict[str, Handler] = {
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
}
