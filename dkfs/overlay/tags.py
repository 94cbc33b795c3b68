"""Tags: names for versions, made of everything written so far."""

from dkfs.errors import ExistsError, NotFoundError, StoreError
from dkfs.history.recorder import Recorder
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY, Operation, OpKind, Origin, Tag
from dkfs.overlay.captures import Captures
from dkfs.store import Store


class Tags:
    """The tags of a mount's store."""

    def __init__(self, captures: Captures, recorder: Recorder, store: Store) -> None:
        self._captures = captures
        self._recorder = recorder
        self._store = store

    def tag(self, name: str, seq: Seq | None = None, origin: Origin = NOBODY) -> Seq:
        """Name version *seq*, by default the present one; return it when that is durable.

        Raises ExistsError, StoreError.
        """
        self._captures.capture_all()
        if not self._recorder.flush():
            raise StoreError(f"the store fails, no tag was made: {self._recorder.failure}")
        with self._store.read() as reader:
            if reader.tag(name) is not None:
                raise ExistsError(f"tag {name} exists already")
        tag = Tag(name, seq or self._recorder.committed, self._recorder.now_ns())
        self._log(OpKind.TAG, tag, origin)
        self._recorder.with_writer(lambda writer: writer.put_tag(tag))
        return tag.seq

    def untag(self, name: str, origin: Origin = NOBODY) -> Seq:
        """Remove the tag *name*, return what it named; raises NotFoundError, StoreError."""
        with self._store.read() as reader:
            tag = reader.tag(name)
        if tag is None:
            raise NotFoundError(f"tag {name} does not exist")
        self._log(OpKind.UNTAG, tag, origin)
        self._recorder.with_writer(lambda writer: writer.delete_tag(name))
        return tag.seq

    def _log(self, kind: OpKind, tag: Tag, origin: Origin) -> None:
        time_ns = self._recorder.now_ns()
        operation = Operation(kind, time_ns, origin, name=tag.name.encode(), target=tag.seq)
        self._recorder.append(operation, ())
