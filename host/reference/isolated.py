"""Gradient-isolated blocks: Mono-Forward on groups of layers; of n groups of L layers, i begins with floor(i L / n)."""

from collections.abc import Sequence

from strop.host.reference.mono_forward import MonoForward


class Blocks(MonoForward):
    """Groups instead of layers: gradients stay inside."""

    rule = "blocks"

    def numbered(self, calls: Sequence[str]) -> tuple[int, ...]:
        """The group of each call."""
        layers = super().numbered(calls)
        count, n = max(layers) + 1, self.settings.n
        groups = [max(i for i in range(n) if i * count // n <= layer) for layer in range(count)]
        return tuple(groups[layer] for layer in layers)
