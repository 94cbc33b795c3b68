"""Rollback, undo and redo: which version to go back to; the way there is a Plan, and nothing is ever removed from the log.

Rollbacks, undos and redos are moves.  Undo takes back the last move that is in effect and is no undo; redo takes back
the last undo, until another rollback is made.  To take back a move is to go to the version before it, with its paths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dkfs.core.plan import Plan
from dkfs.errors import CorruptError, NotFoundError
from dkfs.history.forget import forgotten_move
from dkfs.history.plan import plan
from dkfs.history.versions import check_there
from dkfs.model.ids import Seq
from dkfs.model.operation import Operation, OpKind, Origin
from dkfs.store import Reader


@dataclass(frozen=True, slots=True)
class Move:
    """A rollback, undo or redo that is to be done."""

    kind: OpKind  # ROLLBACK, UNDO, REDO
    target: Seq  # the version to go to
    undoes: Seq = Seq(0)  # UNDO, REDO: the move that is taken back
    paths: tuple[bytes, ...] = ()  # only these; empty: the whole tree

    def plan(self, reader: Reader) -> Plan:
        """Return what it changes, from the last version on; see history.plan for errors."""
        # Directories above the paths may have been made: if nothing else was done since, they go too.
        paths = () if self.undoes and _is_last(reader, self.undoes) else self.paths
        return plan(reader, base=reader.last, target=self.target, paths=paths)

    def operation(self, time_ns: int, origin: Origin) -> Operation:
        """Return what is to be recorded when it is done."""
        return Operation(
            self.kind,
            time_ns,
            origin,
            target=self.target,
            undoes=self.undoes,
            paths=self.paths,
        )


def rollback(target: Seq, paths: Sequence[bytes] = ()) -> Move:
    """Return the move back to *target*, or of *paths* only."""
    return Move(OpKind.ROLLBACK, target, paths=tuple(paths))


def undo(reader: Reader) -> Move:
    """Return the move that takes back the last rollback or redo; raises NotFoundError if there is none."""
    done, _ = _stacks(reader)
    if not done:
        raise NotFoundError(f"nothing to undo: {_forgotten(reader) or 'no rollback is in effect'}")
    return _taking_back(reader, OpKind.UNDO, done[-1])


def redo(reader: Reader) -> Move:
    """Return the move that takes back the last undo; raises NotFoundError if there is none."""
    _, undone = _stacks(reader)
    if not undone:
        why = _forgotten(reader) or "no undo since the last rollback"
        raise NotFoundError(f"nothing to redo: {why}")
    return _taking_back(reader, OpKind.REDO, undone[-1])


def _stacks(reader: Reader) -> tuple[list[Seq], list[Seq]]:
    """Return the moves that can be undone and the undos that can be redone, the next one last.

    Only those after the last move that was forgotten: what is in effect of the earlier ones is not known any more.
    """
    done: list[Seq] = []
    undone: list[Seq] = []
    forgotten = forgotten_move(reader)
    for seq, kind in reader.moves():
        if seq < forgotten:
            continue
        if kind is OpKind.ROLLBACK:
            done.append(seq)
            undone.clear()
            continue
        taken, other, what = (
            (done, undone, "undo") if kind is OpKind.UNDO else (undone, done, "redo")
        )
        if taken:
            taken.pop()
        elif not forgotten:
            raise CorruptError(f"version {seq} is an {what}, but nothing was there to {what}")
        other.append(seq)
    return done, undone


def _forgotten(reader: Reader) -> str | None:
    """Return why nothing is known of earlier moves, if they were forgotten."""
    seq = forgotten_move(reader)
    return (
        f"the one at version {seq} was forgotten, `dkfs rollback` goes to any version"
        if seq
        else None
    )


def _is_last(reader: Reader, seq: Seq) -> bool:
    """Return whether nothing but tagging was done since *seq*."""
    since = reader.log(Seq(seq + 1), reader.last)
    return all(record.operation.kind in (OpKind.TAG, OpKind.UNTAG) for record in since)


def _taking_back(reader: Reader, kind: OpKind, seq: Seq) -> Move:
    record = reader.record(seq)
    if record is None:
        raise CorruptError(f"version {seq} is missing in the log")
    check_there(reader, Seq(seq - 1))
    return Move(kind, Seq(seq - 1), undoes=seq, paths=record.operation.paths)
