"""Where settings come from: flag > mount option > environment > configuration file > default.

A layer maps the name of a setting to what was given for it; all layers speak texts, so that a number means the
same wherever it was written.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dkfs.config.seed import SEED_FLAGS
from dkfs.config.values import Given
from dkfs.errors import UsageError

NAMES: Final = (
    "state_dir",
    "store",
    "debug",
    "metrics_addr",
    "hash_algo",
    "snapdir",
    "engine",
    "io",
    "capture_interval",
    "prefer",
    "log_file",
    "allow_other",
    "read_only",
    "budget",
    "reserve",
    "scrub_interval",
    "on_store_error",
)
TABLES: Final = ("retention",)  # of a configuration file, beside the settings
ARRAYS: Final = ("io",)  # likewise: a setting of that name is a text, tables are for config.io
_PATHS: Final = ("state_dir", "store", "log_file")
_SEED_NAMES: Final = ("state_dir", "store", "debug", "metrics_addr", "hash_algo")

Layer = dict[str, Given]


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Return what DKFS_* says, and what DIFFKEEPER_* says of the rest; an empty variable says nothing.

    Only METRICS_ADDR may be empty: it turns the metrics off.
    """
    layer: Layer = {}
    for name in NAMES:
        prefixes = ("DKFS_", "DIFFKEEPER_") if name in _SEED_NAMES else ("DKFS_",)
        for prefix in prefixes:
            key = prefix + name.upper()
            text = environ.get(key)
            if text is not None and (text or name == "metrics_addr"):
                layer.setdefault(name, Given(text, key))
    for seed in SEED_FLAGS:
        for prefix in ("DKFS_", "DIFFKEEPER_"):
            key = f"{prefix}{seed.env}"
            if seed.env and environ.get(key):
                layer.setdefault(seed.name, Given(environ[key], key))
    return layer


def read_table(file: Path) -> dict[str, object]:
    """Return what is in the TOML *file*; raises UsageError."""
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as exc:
        raise UsageError(f"configuration file {file}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"configuration file {file} is not TOML: {exc}") from exc


def from_file(file: Path) -> Layer:
    """Return what the TOML *file* says: one key for each setting; raises UsageError.

    Tables are for those who ask for them (config.retention, config.io).
    """
    table = read_table(file)
    known = {*NAMES, *(seed.name for seed in SEED_FLAGS if seed.flag)}
    layer: Layer = {}
    for name, value in table.items():
        where = f"{name} in {file}"
        if name in ARRAYS and isinstance(value, list):
            continue
        if name in TABLES:
            if not isinstance(value, dict):
                raise UsageError(f"{where}: expected a table, [{name}]")
            continue
        if name not in known:
            raise UsageError(
                f"{where}: no such setting, expected one of {', '.join(sorted(known))}"
            )
        if not isinstance(value, str | bool | int | float):
            raise UsageError(f"{where}: expected a text, a number, true or false")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if name in _PATHS and not text.startswith("/"):
            raise UsageError(f"{where}: {text!r}, expected an absolute path")
        layer[name] = Given(text, where)
    return layer


def merge(*layers: Layer) -> Layer:
    """Return one layer in which the first of *layers* that has a name decides."""
    merged: Layer = {}
    for layer in reversed(layers):
        merged.update(layer)
    return merged
