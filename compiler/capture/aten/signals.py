"""Layers on signals (B,C,L): the same layers on images (B,C,1,L), which are the same memory."""

from collections.abc import Sequence

from strop.compiler.capture.call import Call, Handler, pair
from strop.compiler.ir import Attr


def read(call: Call, name: str) -> str:
    """An operand (B,C,H,W), or of a layer on signals (B,C,L) as (B,C,1,L)."""
    if not on_signal(call):
        return call.activation(name, rank=4)
    value = call.activation(name)
    if len(call.shape(value)) != 3:
        layout = "(batch, channels, length)"
        raise call.refusal(f"reads an input of shape {call.shape(value)}", do=f"Give it an input of shape {layout}")
    batch, channels, length = call.shape(value)
    return call.reshape(value, (batch, channels, 1, length))


def give(call: Call, value: str) -> str:
    """A result (B,C,H,W), or of a layer on signals as (B,C,L)."""
    batch, channels, *image = call.shape(value)
    return call.reshape(value, (batch, channels, image[1])) if on_signal(call) else value


def sizes(call: Call, setting: int | Sequence[int], height: int) -> tuple[int, int]:
    """(h, w) of a setting; a layer on signals says the width only."""
    return (height, pair(setting)[1]) if on_signal(call) else pair(setting)


def on_signal(call: Call) -> bool:
    """Whether the layer is one on signals."""
    return "1d" in call.op


def follow(call: Call, kind: str, value: str, operands: Sequence[str] = (), **attrs: Attr) -> str:
    """Emit an op that keeps the shape of `value`.

    What a layer on signals has made is still an image for it, so that the op stays with the layer in front.
    """
    result = call.emit(kind, [_image(call, value), *operands], **attrs)
    return call.reshape(result, call.shape(value))


def _image(call: Call, value: str) -> str:
    """What `value` was before the layer that made it gave it the shape of a signal."""
    made = {op.outputs[0]: op for op in call.reader.b.ops}
    if value not in made or made[value].kind != "reshape":
        return value
    (source,) = made[value].inputs
    batch, channels, *length = call.shape(value)
    same_layer = source in made and made[source].loc == made[value].loc
    return source if same_layer and call.shape(source) == (batch, channels, 1, *length) else value


HANDLERS: dict[str, Handler] = {}
