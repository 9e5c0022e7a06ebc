"""Prints kernels that the harts of a cluster run together: every hart its range of a parallel loop, hart 0 all else."""

from typing import Any

from strop.compiler.cprint import Printer

PARALLEL = 1
"""TVM's kind of a loop that is shared out."""


class TeamPrinter(Printer):
    """A Printer of functions with `hart` and `harts` before their other parameters."""

    alone = False

    def function(self, body: Any) -> None:
        """A whole body: its parts in order, all harts together."""
        self.taken |= {"hart", "harts"}
        parts = _parts(body)
        nests = [part for part in parts if type(part).__name__ != "DeclBuffer"]
        shared = all(type(part).__name__ == "For" for part in nests) and any(map(_is_shared, nests))
        for part in parts if shared else [body]:
            if any(part.same_as(nest) for nest in nests[1:]):
                self._line("strop_team_barrier(hart);")
            if type(part).__name__ == "DeclBuffer" or (shared and _is_shared(part)):
                self.statement(part)
            else:
                self._by_one(part)
        if not any(" / harts" in line for line in self.lines):
            self._line("(void)harts;")

    def _by_one(self, body: Any) -> None:
        self.alone = True
        self._block("if (hart == 0)", body)
        self.alone = False

    def _For(self, node: Any) -> None:
        if self.alone or not _is_shared(node):
            super()._For(node)
            return
        self.bounds.loop(node)
        var, turns = self._variable(node.loop_var), int(node.extent)
        head = f"for (int {var} = {turns} * hart / harts; {var} < {turns} * (hart + 1) / harts; ++{var})"
        self._block(head, node.body)


def _is_shared(node: Any) -> bool:
    return type(node).__name__ == "For" and int(node.kind) == PARALLEL


def _parts(body: Any) -> list[Any]:
    """The statements of a body, in order."""
    return [part for each in body.seq for part in _parts(each)] if type(body).__name__ == "SeqStmt" else [body]
