"""The flags that say which versions are kept, and the rules that they and the configuration file make."""

import argparse
import os
import time
from pathlib import Path
from typing import Final

from dkfs.cli.parser import Parser
from dkfs.config.retention import KEYS, TABLE, keys_in_file, rules_of
from dkfs.config.values import Given
from dkfs.core.retention import PathRule, Rules
from dkfs.errors import UsageError

_EACH: Final = {
    "hourly": ("-H", "hours"),
    "daily": ("-d", "days"),
    "weekly": ("-w", "weeks"),
    "monthly": ("-m", "months"),
    "yearly": ("-y", "years"),
}


def add_policy(parser: Parser) -> None:
    """Add the flags."""
    group = parser.add_argument_group(
        "what is kept",
        "N is a number, or all. DUR is a length of time such as 1y5m7d2h, 2w, 36h, 30min; m is months.",
    )
    group.add_argument("-l", "--keep-last", metavar="N", help="the N newest versions")
    for period, (short, what) in _EACH.items():
        text = f"the newest version of each of the last N {what} that have one"
        group.add_argument(short, f"--keep-{period}", metavar="N", help=text)
    text = "all versions younger than DUR, counted from the newest one"
    group.add_argument("--keep-within", metavar="DUR", help=text)
    for period, (_, what) in _EACH.items():
        text = f"the newest version of each of the {what} within DUR"
        group.add_argument(f"--keep-within-{period}", metavar="DUR", help=text)
    group.add_argument(
        "--keep-tag", metavar="NAME", action="append", help="what is tagged NAME; may be repeated"
    )
    group.add_argument("--min-age", metavar="DUR", help="forget nothing that is younger than DUR")
    group.add_argument(
        "--policy",
        action="store_true",
        help=f"what [{TABLE}] of the configuration file says; flags come before it",
    )


def config_of(args: argparse.Namespace) -> str | None:
    """Return where the configuration file is, if *args* or the environment say so."""
    return getattr(args, "config", None) or os.environ.get("DKFS_CONFIG")


def rules_from(args: argparse.Namespace) -> Rules:
    """Return what *args* and, if they say so, the configuration file want to be kept; raises UsageError."""
    given: dict[str, tuple[Given, ...]] = {}
    paths: tuple[PathRule, ...] = ()
    if "policy" in args:
        config = config_of(args)
        if not config:
            raise UsageError("--policy: expected --config FILE, or DKFS_CONFIG, to say where it is")
        in_file, paths = keys_in_file(Path(config))
        given.update(in_file)
    for key in KEYS:
        if key in args:
            value = getattr(args, key)
            texts = value if isinstance(value, list) else [value]
            given[key] = tuple(Given(text, f"--{key.replace('_', '-')}") for text in texts)
    rules = rules_of(given, paths)
    if rules.policy.is_empty:
        raise UsageError(
            "no policy, nothing is forgotten: expected --keep-last, --keep-daily, --keep-within, ..."
            " or --policy and a [retention] in the configuration file"
        )
    return rules


def local_zone(seconds: int) -> int:
    """Return by how many seconds local time is ahead of UTC at *seconds* since 1970."""
    return time.localtime(seconds).tm_gmtoff
