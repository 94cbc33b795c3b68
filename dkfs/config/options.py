"""Option strings of mount(8): what they say, and which class each option is of.

Commas separate, double quotes protect (mount(8) hands them through), and a backslash protects a comma, a quote
or a backslash, as libfuse has it.
"""

from collections.abc import Iterator
from typing import Final

from dkfs.config.sources import Layer
from dkfs.config.values import Given
from dkfs.errors import UsageError

# Words for mount(8), fstab or systemd that reach a helper all the same, or that change nothing.
_NOISE: Final = frozenset(
    (
        *("user", "nouser", "users", "owner", "group", "auto", "noauto", "nofail", "_netdev"),
        *("defaults", "relatime", "async", "comment", "nonempty", "default_permissions"),
    )
)
_OWN: Final = frozenset(
    (
        *("store", "snapdir", "engine", "io", "capture_interval", "metrics_addr", "prefer"),
        *("log_file", "hash_algo", "fsname", "budget", "reserve", "scrub_interval"),
        "on_store_error",
    )
)
# The setting that an option is about, and what it says of it.
_FLAGS: Final = {
    "allow_other": ("allow_other", "true"),
    "debug": ("debug", "true"),
    "ro": ("read_only", "true"),
    "rw": ("read_only", "false"),
    "suid": ("suid", "true"),
    "nosuid": ("suid", "false"),
    "dev": ("dev", "true"),
    "nodev": ("dev", "false"),
    "exec": ("exec", "true"),
    "noexec": ("exec", "false"),
    "noatime": ("noatime", "true"),
    "atime": ("noatime", "false"),
    "sync": ("sync", "true"),
    "dirsync": ("dirsync", "true"),
}
_REFUSED: Final = {
    "auto_unmount": "the daemon unmounts by itself, and a dead mount is detached by the next one",
    "allow_root": "expected allow_other",
    "remount": "unmount and mount again",
}


def split(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield name and value (None without a "=") of each option in *text*; raises UsageError."""
    word: list[str] = []
    equals = -1  # index in word of the first "=" outside quotes
    quoted = escaped = False
    for char in text:
        if escaped:
            word.append(char if char in ',"\\' else "\\" + char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            if word:
                yield _pair(word, equals)
            word, equals = [], -1
        else:
            if char == "=" and equals < 0 and not quoted:
                equals = len(word)
            word.append(char)
    if quoted or escaped:
        raise UsageError(f"-o {text}: a quote or backslash at the end protects nothing")
    if word:
        yield _pair(word, equals)


def _pair(word: list[str], equals: int) -> tuple[str, str | None]:
    if equals < 0:
        return "".join(word), None
    return "".join(word[:equals]), "".join(word[equals + 1 :])


def parse_options(text: str, *, sloppy: bool = False) -> Layer:
    """Return the settings that *text* gives, the last of equals winning; raises UsageError naming an option.

    With *sloppy* (mount -s) unknown options are ignored.
    """
    layer: Layer = {}
    for name, value in split(text):
        if name in _NOISE or name.startswith(("x-", "X-")):
            continue
        where = f"-o {name}"
        if name in _FLAGS and value is None:
            setting, implied = _FLAGS[name]
            layer[setting] = Given(implied, where)
        elif name in _OWN and value is not None:
            layer[name] = Given(value, where)
        elif name == "subtype" and value == "dkfs":
            continue
        elif name in _REFUSED:
            raise UsageError(f"{where} is not supported: {_REFUSED[name]}")
        elif name in _OWN or name == "subtype":
            raise UsageError(f"{where}: expected {name}={'dkfs' if name == 'subtype' else 'VALUE'}")
        elif not sloppy:
            raise UsageError(f"{where}: unknown mount option")
    return layer
