"""Copies a version, or a part of one, into a directory of its own."""

import os
from pathlib import Path

from dkfs.core.plan import is_directory
from dkfs.errors import CorruptError, ExistsError, NotFoundError, UsageError
from dkfs.history import creation
from dkfs.history.fill import Progress, Source, fill
from dkfs.history.outcome import Result, Tally
from dkfs.history.places import check_name
from dkfs.history.tree import Tree, components, shown
from dkfs.model.ids import Seq
from dkfs.store import Reader


def restore(
    reader: Reader,
    at: Seq,
    path: bytes,
    target: Path,
    *,
    on_progress: Progress | None = None,
    sync: bool = False,
) -> Result:
    """Copy what *path* is at version *at* into the directory *target*, made if missing; a file as target/NAME.

    With *sync* all is durable at the end.  Damaged files are left out and are problems in the result.
    Raises NotFoundError, ExistsError if there is something in *target*, UsageError if it is no directory, OSError.
    """
    if not 0 < at <= reader.last:
        raise NotFoundError(f"version {at} does not exist: expected 1 to {reader.last}")
    tree = Tree(reader, at)
    node = tree.resolve(path)
    state = tree.state(node)
    fd = _open_target(target, mode=0o700 if is_directory(state) else 0o777)
    try:
        if is_directory(state):
            return fill(Source(reader, at, node), fd, on_progress=on_progress, sync=sync)
        name = check_name(components(path)[-1])
        try:
            written, problems = creation.create(reader, state, name, fd, sync=sync)
        except (CorruptError, PermissionError) as exc:
            tally = Tally()
            tally.problems.append(f"{shown(path)}: not made: {tally.problem(exc)}")
            return tally.result()
        if on_progress is not None:
            on_progress(1, 1, written)
        return Result(
            created=1,
            bytes_written=written,
            problems=tuple(f"{shown(path)}: {each}" for each in problems),
        )
    finally:
        os.close(fd)


def _open_target(target: Path, *, mode: int) -> int:
    """Open the directory *target*, which is empty or made now."""
    try:
        target.mkdir(mode=mode, parents=True)
    except FileExistsError:
        if not target.is_dir():
            raise UsageError(
                f"{target} is not a directory: expected an empty one, or nothing"
            ) from None
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with os.scandir(fd) as entries:
        if any(True for _ in entries):
            os.close(fd)
            raise ExistsError(f"{target} is not empty: expected an empty directory, or nothing")
    return fd
