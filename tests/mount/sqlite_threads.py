"""SQLite's own tests of threads, test/threadtest3.c, built from Debian's source package for the SQLite that is installed.

The source comes through apt-get into a directory of the checkout that git ignores, once.
"""

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
_CACHE = CHECKOUT / ".outside" / "sqlite"
_PATIENCE_S = 120
_PROGRAMS = ("apt-get", "gcc", "tar", "xz")


def threadtest3(milliseconds: int) -> Path | None:
    """Return a program that runs each of its tests for so long; None if it cannot be had here."""
    if any(shutil.which(program) is None for program in _PROGRAMS):
        return None
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            source = _source()
            return None if source is None else _built(source, milliseconds)
        except (subprocess.SubprocessError, OSError):
            return None


def _source() -> Path | None:
    """Return the directory of the source, fetched if need be; None if there is none to fetch."""
    if not any(_CACHE.glob("sqlite3-*/test/threadtest3.c")):
        _fetch()
    return next((path.parent.parent for path in _CACHE.glob("sqlite3-*/test/threadtest3.c")), None)


def _fetch() -> None:
    """Download with lists of our own, so that the machine's settings stay what they are."""
    parts = _CACHE / "sources"
    parts.mkdir(exist_ok=True)
    (_CACHE / "lists").mkdir(exist_ok=True)
    _write_sources(parts)
    options = [
        *("-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}"),
        *("-o", f"Dir::State::lists={_CACHE / 'lists'}", "-o", f"Dir::Cache={_CACHE / 'cache'}"),
        *("-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"),
    ]
    for words in (["update"], ["source", "--download-only", "sqlite3"]):
        subprocess.run(
            ["apt-get", "-qq", *options, *words],
            cwd=_CACHE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_PATIENCE_S,
        )
    archive = next(path for path in _CACHE.glob("sqlite3_*.orig.tar.xz"))
    subprocess.run(["tar", "-xf", archive], cwd=_CACHE, check=True, timeout=_PATIENCE_S)
    for name in ("lists", "cache", "sources"):
        shutil.rmtree(_CACHE / name, ignore_errors=True)


def _write_sources(parts: Path) -> None:
    """Write where the machine's packages come from, for source packages."""
    for path in Path("/etc/apt/sources.list.d").glob("*.sources"):
        text = re.sub(r"^Types:.*$", "Types: deb-src", path.read_text(), flags=re.MULTILINE)
        (parts / path.name).write_text(text)
    old = Path("/etc/apt/sources.list")
    if old.exists():
        lines = [line for line in old.read_text().splitlines() if line.startswith("deb ")]
        (parts / "old.list").write_text("".join(f"deb-src{line[3:]}\n" for line in lines))


def _built(source: Path, milliseconds: int) -> Path:
    program = _CACHE / f"threadtest3-{milliseconds}"
    if program.exists():
        return program
    version = (source / "VERSION").read_text().strip()
    header = (source / "src" / "sqlite.h.in").read_text().replace("--VERS--", version)
    header = header.replace("--VERSION-NUMBER--", "0").replace("--SOURCE-ID--", "source")
    (_CACHE / "sqlite3.h").write_text(header)
    text = (source / "test" / "threadtest3.c").read_text()
    # The table of tests says how long each of them runs.
    text = re.sub(r'(\{ *walthread\d, *"walthread\d", *)\d+', rf"\g<1>{milliseconds}", text)
    (source / "test" / "timed.c").write_text(text)
    subprocess.run(
        [
            *("gcc", "-O1", "-w", f"-I{_CACHE}", f"-I{source / 'src'}", "-o", program),
            *(source / "test" / "timed.c", source / "src" / "test_multiplex.c"),
            *("-l:libsqlite3.so.0", "-lpthread", "-lm", "-ldl"),
        ],
        check=True,
        capture_output=True,
        timeout=_PATIENCE_S,
    )
    return program
