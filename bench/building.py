"""The bench's own programs in C, built once."""

import hashlib
import os
import subprocess
from pathlib import Path

from bench.peer import CHECKOUT, BenchError

_BUILD = CHECKOUT / "build" / "bench"
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


def built(name: str) -> Path:
    """Return the program that bench/NAME.c is the source of; raises BenchError."""
    source = CHECKOUT / "bench" / f"{name}.c"
    digest = hashlib.blake2b(source.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    program = _BUILD / f"{name}-{digest}"
    if not program.exists():
        _BUILD.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        try:
            subprocess.run(
                ["gcc", *_FLAGS, "-o", unfinished, source],
                check=True,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise BenchError("gcc is not installed") from None
        except subprocess.CalledProcessError as exc:
            raise BenchError(f"{source.name}: {exc.stderr}") from exc
        unfinished.rename(program)
    return program
