"""`save`, `load` and `factory-reset`: checkpoints in the flash of a board that runs."""

from strop.host.cli.choices import session_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Shared, Tools
from strop.host.cli.show import facts
from strop.host.session import Session


@verb()
def save(shared: Shared, tools: Tools) -> Outcome:
    """Let a running board keep what it has learnt in its flash; it goes on from there when it starts again."""
    with session_of(shared, tools, "save") as session:
        return _outcome(session, session.save())


@verb()
def load(shared: Shared, tools: Tools) -> Outcome:
    """Set a running board back to the checkpoint in its flash."""
    with session_of(shared, tools, "load") as session:
        return _outcome(session, session.load())


@verb("factory-reset")
def factory_reset(shared: Shared, tools: Tools) -> Outcome:
    """Set a running board to its beginning, and erase the checkpoints in its flash."""
    with session_of(shared, tools, "factory-reset") as session:
        session.forget()
        return _outcome(session, 0)


def _outcome(session: Session, steps: int) -> Outcome:
    """Where the board stands now, and how worn its flash is: erases of either slot."""
    hello = session.hello()
    erases = list(hello.store.erases) if hello.store else []
    document = {"board": hello.board, "steps": steps, "erases": erases}
    return Outcome(document, lambda out: facts(out, {**document, "erases": " and ".join(map(str, erases))}))
