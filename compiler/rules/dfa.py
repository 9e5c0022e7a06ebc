"""DFA (Nokland, NeurIPS 2016): the error at the output reaches every hidden layer through a fixed random matrix.

    dJ/da_l = B_l e (DFA) or B_l sign(e) (sDFA)    e the gradient of the task loss at the output: softmax - y*

B_l as in DRTP. No transposed weight is read; activations are kept as for backpropagation, until e is known. A
convolution gets its error at its channel means, a recurrent layer at its last step, from where it goes back in time
inside the layer.
"""

from dataclasses import dataclass

from strop.compiler.ir import Builder
from strop.compiler.rules.base import Block, Task
from strop.compiler.rules.drtp import Injected, check_bounded, feedback
from strop.compiler.rules.local import rows


@dataclass(frozen=True)
class DFA(Injected):
    """Direct feedback alignment, for fully connected and recurrent layers, and convolutions with tanh or sigmoid.

    strength: of the random errors, see `Injected`.
    """

    name = "dfa"
    source = "NeurIPS 2016, arXiv 1609.01596"
    refuses = "convolutions without tanh or sigmoid, layers that run at every step of a sequence"

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """<a, B e>, e held constant."""
        check_bounded(block, self.name.upper())
        activity, (error, strength) = rows(b, block), self.signal(b, task)
        stream = feedback(b, block, activity, self.seed)
        direction = b.emit1("random_projection", (error,), f"{block.output}.feedback", loc=block.loc, **stream)
        name = f"{block.output}.objective"
        return b.emit1("dot", (activity, direction), name, loc=block.loc, strength=strength)

    def signal(self, b: Builder, task: Task) -> tuple[str, float]:
        """What reaches every layer, (B,K), and the strength of it: e is that of a mean over the batch already."""
        return task.error(b), self.strength * b.values[task.label].shape[0]


@dataclass(frozen=True)
class SDFA(DFA):
    """Direct feedback alignment of the error's sign: robust, and one of three values a class."""

    name = "sdfa"

    def signal(self, b: Builder, task: Task) -> tuple[str, float]:
        """The signs of the error."""
        error = task.error(b)
        made = [op.outputs[0] for op in b.ops if op.kind == "sign" and op.inputs == (error,)]
        return made[0] if made else b.emit1("sign", (error,), f"{error}.sign"), self.strength
