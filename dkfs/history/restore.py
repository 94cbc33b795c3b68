"""Copies a version, or a part of one, into a directory of its own, or into one that holds something."""

import os
from pathlib import Path

from dkfs.core.plan import is_directory
from dkfs.errors import ExistsError, NotFoundError, UsageError
from dkfs.history import existing
from dkfs.history.extraction import Extraction
from dkfs.history.fill import Source
from dkfs.history.outcome import Result
from dkfs.history.places import check_name
from dkfs.history.tree import Tree, components
from dkfs.history.wish import Wish
from dkfs.model.ids import Seq
from dkfs.store import Reader


def restore(
    reader: Reader,
    at: Seq,
    path: bytes,
    target: Path,
    wish: Wish | None = None,
) -> Result:
    """Copy what *path* is at version *at* into the directory *target*, made if missing; a file as target/NAME.

    Without a *wish* there must be nothing in *target*.  What is damaged or refused is a problem in the result.
    Raises NotFoundError, ExistsError if there is something in *target* that must not be, or another restore at work,
    UsageError if it is no directory, OSError.
    """
    if not 0 < at <= reader.last:
        raise NotFoundError(f"version {at} does not exist: expected 1 to {reader.last}")
    if reader.version(at) != at:
        raise NotFoundError(f"version {at} was forgotten")
    tree = Tree(reader, at)
    node = tree.resolve(path)
    is_dir = is_directory(tree.state(node))
    only = None if is_dir else check_name(components(path)[-1])
    top = node if is_dir else tree.resolve(b"/".join(components(path)[:-1]))
    must_be_empty = wish is None or wish.overwrite is None
    wish = wish or Wish()
    fd = _open_target(target, mode=0o700 if is_dir else 0o777, dry_run=wish.dry_run)
    try:
        if fd is not None:
            _claim(fd, target, must_be_empty=must_be_empty, dry_run=wish.dry_run)
        extraction = Extraction(Source(reader, at, top), fd, wish, only)
        extraction.run()
        return extraction.tally.result()
    finally:
        if fd is not None:
            os.close(fd)


def _open_target(target: Path, *, mode: int, dry_run: bool) -> int | None:
    """Open the directory *target*, made now if it is missing; None if it would have to be made."""
    try:
        if not dry_run:
            target.mkdir(mode=mode, parents=True)
    except FileExistsError:
        pass  # or is no directory, as opening it tells
    try:
        return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        if not dry_run:
            raise
        return None
    except NotADirectoryError:
        raise UsageError(
            f"{target} is not a directory: expected an empty one, or nothing"
        ) from None


def _claim(fd: int, target: Path, *, must_be_empty: bool, dry_run: bool) -> None:
    """Raise ExistsError if there is something in the target that must not be, or another restore at work."""
    if not dry_run:
        existing.lock(fd)
    if must_be_empty:
        with os.scandir(fd) as entries:
            if any(True for _ in entries):
                raise ExistsError(
                    f"{target} is not empty: expected an empty directory, or nothing, or --overwrite"
                )
