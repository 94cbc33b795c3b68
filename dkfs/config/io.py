"""Which files are served how: `-o io=` for all, and the tables [[io]] of a configuration file for some.

    [[io]]
    path = "models/**"
    mode = "checkpoint"

The first table whose pattern means a file, or a directory above it, decides; `-o io=` is for the rest.  In a
file without such tables `io = "hybrid"` says what `-o io=hybrid` does.
"""

from pathlib import Path
from typing import Final

from dkfs.config.settings import MountSettings
from dkfs.config.sources import read_table
from dkfs.core.io_mode import IoMode, IoRule
from dkfs.core.patterns import Pattern
from dkfs.errors import UsageError

TABLE: Final = "io"
_PATH: Final = "path"
_MODE: Final = "mode"


def rules_in_file(file: Path) -> tuple[IoRule, ...]:
    """Return what the tables [[io]] of *file* say; raises UsageError."""
    tables = read_table(file).get(TABLE)
    if not isinstance(tables, list):
        return ()
    return tuple(_rule(table, f"[[{TABLE}]] in {file}") for table in tables)


def _rule(table: object, where: str) -> IoRule:
    if not isinstance(table, dict):
        raise UsageError(f"{where}: expected a table")
    for key in table:
        if key not in (_PATH, _MODE):
            raise UsageError(f"{key} of {where}: no such key, expected {_PATH} and {_MODE}")
    path, mode = table.get(_PATH), table.get(_MODE)
    if not isinstance(path, str):
        raise UsageError(f'{where}: expected {_PATH} = "PATTERN"')
    where = f"{where} ({path})"
    if mode not in tuple(IoMode):
        raise UsageError(f"{where}: {_MODE} is {mode!r}, expected {' or '.join(IoMode)}")
    try:
        return IoRule(Pattern(path.encode()), IoMode(mode))
    except UsageError as exc:
        raise UsageError(f"{where}: {exc}") from None


def check_io(settings: MountSettings) -> None:
    """Raise UsageError if the engine that was asked for cannot serve a file as it is to be."""
    if settings.engine != "pyfuse3":
        return
    for mode, where in (
        (settings.io, f"io={settings.io}"),
        *((rule.mode, f"[[{TABLE}]]: mode = {rule.mode}") for rule in settings.io_rules),
    ):
        if mode != IoMode.STRICT:
            raise UsageError(
                f"{where}: the engine pyfuse3 serves io=strict only, expected engine=kernel or auto"
            )
