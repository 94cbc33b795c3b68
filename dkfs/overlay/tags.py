"""Tags and holds: names for versions, made of everything written so far."""

from collections.abc import Callable

from dkfs.core.plan import Plan
from dkfs.errors import StoreError
from dkfs.failpoints import failpoint
from dkfs.history import tags
from dkfs.history.recorder import Recorder
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY, Operation, OpKind, Origin, Tag
from dkfs.overlay.captures import Captures
from dkfs.store import Store, Writer


class Tags:
    """The tags and holds of a mount's store."""

    def __init__(self, captures: Captures, recorder: Recorder, store: Store) -> None:
        self._captures = captures
        self._recorder = recorder
        self._store = store

    def tag(
        self,
        name: str,
        seq: Seq | None = None,
        origin: Origin = NOBODY,
        *,
        is_hold: bool = False,
        expires_ns: int | None = None,
    ) -> Seq:
        """Name version *seq*, by default the present one; return it when that is durable.

        Raises ExistsError, NotFoundError, StoreError, that too if something written so far cannot be recorded.
        """
        if seq is None:
            self._captures.capture_all()
            self._captures.refuse_uncaptured("no tag was made")
        if not self._recorder.flush():
            raise StoreError(f"the store fails, no tag was made: {self._recorder.failure}")
        time_ns = self._recorder.now_ns()
        tag = Tag(name, seq or self._recorder.committed, time_ns, is_hold, expires_ns)
        with self._store.read() as reader:
            tags.check_new(reader, tag)
        failpoint("tag.put")
        self._record(
            tags.operation(OpKind.TAG, tag, time_ns, origin), lambda writer: writer.put_tag(tag)
        )
        return tag.seq

    def untag(self, name: str, origin: Origin = NOBODY, *, is_hold: bool = False) -> Seq:
        """Remove the tag or hold *name*, return what it named.

        Raises NotFoundError, NotPermittedError if it is of the other kind, StoreError.
        """
        if not self._recorder.flush():
            raise StoreError(f"the store fails, {name} stays: {self._recorder.failure}")
        with self._store.read() as reader:
            tag = tags.check_removal(reader, name, is_hold=is_hold)
        time_ns = self._recorder.now_ns()
        failpoint("tag.delete")
        self._record(
            tags.operation(OpKind.UNTAG, tag, time_ns, origin),
            lambda writer: writer.delete_tag(name),
        )
        return tag.seq

    def _record(self, operation: Operation, work: Callable[[Writer], None]) -> None:
        """Record *operation* and do *work* in one transaction: no log tells of a tag that is not there."""
        last = self._recorder.last
        self._recorder.append_plan(operation, Plan(last, last), expected=last, work=work)
