"""What is in a directory."""

from pathlib import Path


def tree_of(top: Path) -> dict[str, object]:
    """Return contents, mode and time of everything below *top*, by its path."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        contents: object = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(top))] = (contents, status.st_mode, status.st_mtime_ns)
    return found
