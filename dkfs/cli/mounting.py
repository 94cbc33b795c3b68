"""The flags of mount, run and replay, dkfs's and the seed's, and the settings they give."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from dkfs.cli.parser import Parser, Switch
from dkfs.config import io
from dkfs.config.checks import check_apart
from dkfs.config.options import parse_options
from dkfs.config.resolve import resolve
from dkfs.config.retention import rules_in_file
from dkfs.config.seed import SEED_FLAGS
from dkfs.config.settings import MountSettings
from dkfs.config.sources import NAMES, Layer, from_environment, from_file, merge
from dkfs.config.values import Given
from dkfs.history.recovery import open_store
from dkfs.metrics.address import parse_address

_INDEX: Final = "index.lmdb"  # what makes a directory a store


def add_flags(parser: Parser) -> None:
    """Add the flags that say what is mounted and how."""
    group = parser.add_argument_group("settings")
    group.add_argument(
        "--state-dir", metavar="DIR", help="the directory whose history is kept (default /data)"
    )
    group.add_argument(
        "--hash-algo", metavar="NAME", help="blake3 (default) or sha256, for a new store"
    )
    group.add_argument(
        "--prefer",
        metavar="WHO",
        help="newer (default), store or dir: who wins where directory and store differ",
    )
    group.add_argument(
        "--log-file",
        metavar="FILE",
        help="log there, not on stderr (in the background: warnings in STORE/daemon.log)",
    )
    for seed in SEED_FLAGS:
        if seed.flag:
            shown = seed.help or seed.shown or argparse.SUPPRESS
            if seed.is_bool:
                group.add_argument(f"--{seed.flag}", action=Switch, metavar="[=BOOL]", help=shown)
            else:
                group.add_argument(f"--{seed.flag}", metavar="VALUE", help=shown)


def add_mount_flags(parser: Parser) -> None:
    """Add the flags of a mount that stays."""
    group = parser.add_argument_group("mount settings")
    group.add_argument(
        "-o",
        dest="options",
        action="append",
        metavar="OPTIONS",
        help="mount options, comma separated: allow_other, ro, store=DIR, snapdir=..., ...",
    )
    group.add_argument(
        "--metrics-addr", metavar="ADDR", help='serve metrics there (default :9911; "" = off)'
    )
    group.add_argument(
        "--capture-interval",
        metavar="TIME",
        help="give files that stay open a version so often (default 1s)",
    )
    group.add_argument(
        "--snapdir", metavar="HOW", help=".dkfs: hidden (default), visible, disabled"
    )
    group.add_argument(
        "--budget",
        metavar="SIZE",
        help="forget versions, as [retention] of the configuration file says, so that the store stays smaller (see `dkfs help retention`)",
    )
    group.add_argument(
        "--reserve",
        metavar="SIZE",
        help="keep so much of the disk, once it has less than 4G left, for when it is full (default 16M; 0 = none)",
    )
    group.add_argument(
        "--on-store-error",
        metavar="WHAT",
        help="continue (default): files can be changed while the store fails, and a gap is recorded when it works again; fail: that is refused",
    )
    group.add_argument(
        "--scrub-interval",
        metavar="TIME",
        help="verify everything in the store so often, slowly (default 30d; 0 = never)",
    )
    group.add_argument("--engine", metavar="NAME", help="auto (default), kernel or pyfuse3")
    group.add_argument(
        "--io",
        metavar="MODE",
        help="strict (default), hybrid or checkpoint: how much of the data path dkfs sits in (see `dkfs help io-modes`)",
    )


def settings_of(
    args: argparse.Namespace,
    paths: Layer,
    *,
    sloppy: bool = False,
    defaults: Layer | None = None,
) -> MountSettings:
    """Return the settings that *args*, *paths*, environment and configuration file say; raises UsageError.

    What nobody says is as in *defaults*.  With *sloppy* unknown mount options are ignored.
    """
    flags: Layer = dict(paths)
    for name in (*NAMES, *(seed.name for seed in SEED_FLAGS if seed.flag)):
        if name in args:
            flags[name] = Given(getattr(args, name), f"--{name.replace('_', '-')}")
    options = parse_options(",".join(getattr(args, "options", ())), sloppy=sloppy)
    config = getattr(args, "config", None) or os.environ.get("DKFS_CONFIG")
    given = merge(
        flags,
        options,
        from_environment(os.environ),
        from_file(Path(config)) if config else {},
        defaults or {},
    )
    settings = resolve(given, base=Path.cwd())
    if config:
        file = Path(config)
        settings = replace(settings, retention=rules_in_file(file), io_rules=io.rules_in_file(file))
    io.check_io(settings)
    if settings.metrics_addr:
        parse_address(settings.metrics_addr)
    return settings


def make_state_dir(settings: MountSettings) -> None:
    """Make the state directory if it is lost and the store can give back what was in it.

    Raises UsageError if they lie in one another, StoreError if the store cannot be had: then nothing is made.
    """
    if _is_missing(settings.state_dir) and (settings.store / _INDEX).exists():
        check_apart(settings, mounting=False)
        with open_store(settings.store, writable=True):
            settings.state_dir.mkdir(parents=True)


def _is_missing(path: Path) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:  # a dead mount, say, which is detached later
        return False
    return False
