"""Tags and holds of a store: names for versions, the latter also keep theirs from being forgotten."""

from dkfs.core.times import format_time
from dkfs.errors import ExistsError, NotFoundError, NotPermittedError
from dkfs.history.forget import is_live_hold
from dkfs.history.versions import check_there
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY, Operation, OpKind, Origin, Tag
from dkfs.store import Reader, Writer


def check_new(reader: Reader, tag: Tag) -> None:
    """Raise ExistsError if the name of *tag* is taken, NotFoundError if its version is not there."""
    taken = reader.tag(tag.name)
    if taken is not None:
        raise ExistsError(f"{_kind(taken)} {tag.name} exists already, of version {taken.seq}")
    check_there(reader, tag.seq)


def check_removal(reader: Reader, name: str, *, is_hold: bool) -> Tag:
    """Return the tag, or with *is_hold* the hold, that is to be removed.

    Raises NotFoundError if there is none, NotPermittedError if it is of the other kind.
    """
    tag = reader.tag(name)
    if tag is None:
        raise NotFoundError(f"{'hold' if is_hold else 'tag'} {name} does not exist")
    if tag.is_hold is not is_hold:
        how = "`dkfs release`" if tag.is_hold else "`dkfs tag --delete`"
        raise NotPermittedError(f"{name} is a {_kind(tag)}: expected {how}")
    return tag


def operation(kind: OpKind, tag: Tag, time_ns: int, origin: Origin = NOBODY) -> Operation:
    """Return what the log is to say of *tag* being made or removed."""
    return Operation(kind, time_ns, origin, name=tag.name.encode(), target=tag.seq)


def put(writer: Writer, tag: Tag) -> None:
    """Make *tag*, as a version of its own; see check_new for errors."""
    check_new(writer, tag)
    _log(writer, OpKind.TAG, tag, tag.time_ns)
    writer.put_tag(tag)


def remove(writer: Writer, name: str, time_ns: int, *, is_hold: bool) -> Tag:
    """Remove a tag or hold, as a version of its own, and return it; see check_removal for errors."""
    tag = check_removal(writer, name, is_hold=is_hold)
    _log(writer, OpKind.UNTAG, tag, time_ns)
    writer.delete_tag(name)
    return tag


def state_of(tag: Tag, now_ns: int) -> str:
    """Return "tag", "hold", "hold until TIME" or "expired hold"."""
    if not tag.is_hold:
        return "tag"
    if not is_live_hold(tag, now_ns):
        return "expired hold"
    return (
        "hold" if tag.expires_ns is None else f"hold until {format_time(tag.expires_ns, digits=0)}"
    )


def _kind(tag: Tag) -> str:
    return "hold" if tag.is_hold else "tag"


def _log(writer: Writer, kind: OpKind, tag: Tag, time_ns: int) -> None:
    last = writer.record(writer.last)
    time_ns = max(time_ns, last.operation.time_ns if last else 0)
    writer.append(Seq(writer.last + 1), operation(kind, tag, time_ns), (), ())
