"""The counter-based generator of ``runtime/rng.h``, in numpy: the same bits for the same (seed, tensor, index).

It gives projections and other fixed random tensors their values on the host (interpreter, references, tests) where the
board regenerates them element by element. The bits never change between releases: checkpoints depend on them.
``runtime/rng.h`` is the manual: quality, cost and the source of the constants.
"""

from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strop.errors import UsageError

_WORD = 2**32
_GOLDEN = 0x9E3779B9
_ADVICE = "Give an integer from 0 to 4294967295"


def tensor_key(name: str) -> int:
    """Return the 32-bit key of a tensor: CRC-32 of its name in UTF-8, the same in every release."""
    return crc32(name.encode())


def rng(seed: int, tensor: int, index: ArrayLike) -> NDArray[np.uint32]:
    """Return 32 uniform bits for every element of ``index``, in its shape.

    seed, tensor: below 2^32 (see ``tensor_key``).  index: integers below 2^32, any shape.
    Raises UsageError for a number that does not fit in 32 bits or is not an integer.
    """
    state = _words(seed, "the seed") + np.uint32(_GOLDEN)
    first = _mix(_mix(state) ^ _words(tensor, "the tensor key"))
    second = _mix(first + np.uint32(_GOLDEN))
    return _mix(_words(index, "an index") ^ first, second).reshape(np.shape(index))


def uniform(seed: int, tensor: int, index: ArrayLike) -> NDArray[np.float32]:
    """Return float32 in [0, 1), multiples of 2^-24, in the shape of ``index``; arguments as for ``rng``."""
    return (rng(seed, tensor, index) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def sign(seed: int, tensor: int, index: ArrayLike) -> NDArray[np.float32]:
    """Return +1 or -1 in float32, in the shape of ``index``; arguments as for ``rng``."""
    return np.where(rng(seed, tensor, index) >> np.uint32(31), np.float32(-1), np.float32(1))


def _mix(x: NDArray[np.uint32], key: NDArray[np.uint32] | int = 0) -> NDArray[np.uint32]:
    word = np.uint32
    x = (x ^ x >> word(17)) * word(0xED5AD4BB)
    x = (x ^ x >> word(11)) + np.asarray(key, word)
    x = x * word(0xAC4C1B51)
    x = (x ^ x >> word(15)) * word(0x31848BAB)
    return x ^ x >> word(14)


def _words(value: ArrayLike, what: str) -> NDArray[np.uint32]:
    """Return the value as an array of 32-bit words, never a scalar: those warn when they wrap."""
    numbers = np.atleast_1d(np.asarray(value))
    if numbers.size and numbers.dtype.kind not in "iu":
        raise UsageError(f"{what} is not an integer of 32 bits: {value!r}", do=_ADVICE)
    if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) < _WORD:
        raise UsageError(f"{what} does not fit in 32 bits: {value!r}", do=_ADVICE)
    return numbers.astype(np.uint32)
