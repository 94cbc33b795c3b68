"""Fuzz every decoder of the store, and the one of the kernel's requests, with atheris, guided by what code an input reaches.

What must hold for any input is in fuzz_decoders.py. An input that breaks it is kept in the directory that --keep names,
with the end of what the fuzzer said beside it.

exit status:
  0 nothing was found; 1 something was; 2 usage, or atheris is not installed
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import fuzz_decoders

CHECKOUT = Path(__file__).resolve().parent.parent
_TIMEOUT_S = 10  # for one input
_MEMORY_MIB = 1024  # for a fuzzing process
_MEMORY = Path("/dev/shm")
_TAIL = 4000  # characters of what it said


def main() -> int:
    """Do what the command line says; return the exit status."""
    names = [decoder.name for decoder in fuzz_decoders.DECODERS]
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m bench.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=int, default=60, metavar="N", help="for each decoder (60)")
    add("--decoder", choices=names, metavar="NAME", help="only this one: " + ", ".join(names))
    add("--keep", type=Path, default=Path("fuzz-findings"), metavar="DIR", help="(fuzz-findings)")
    args = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed")
    found = 0
    for name in [args.decoder] if args.decoder else names:
        print(f"{name:16} ", end="", flush=True)
        trouble, said = fuzz(name, seconds=args.seconds, keep=args.keep)
        print(said, flush=True)
        found += trouble
    return 1 if found else 0


def fuzz(name: str, *, seconds: int, keep: Path) -> tuple[bool, str]:
    """Fuzz one decoder in a process of its own; return whether something was found, and a line that says it."""
    decoder = next(one for one in fuzz_decoders.DECODERS if one.name == name)
    memory = _MEMORY if _MEMORY.is_dir() else None  # a scan writes many small files a second
    with tempfile.TemporaryDirectory(prefix="dkfs-fuzz-", dir=memory) as work:
        corpus, artifacts = Path(work, "corpus"), Path(work, "artifacts")
        corpus.mkdir()
        artifacts.mkdir()
        for number, seed in enumerate(decoder.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        child = subprocess.run(
            [
                *(sys.executable, "-m", "bench.fuzz_child", name, corpus),
                *(f"-max_total_time={seconds}", f"-timeout={_TIMEOUT_S}"),
                *(f"-rss_limit_mb={_MEMORY_MIB}", f"-artifact_prefix={artifacts}/", "-seed=1"),
            ],
            cwd=CHECKOUT,
            env={**os.environ, "TMPDIR": work},  # libFuzzer ends the process without cleaning up
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        lines = (child.stdout + child.stderr).splitlines()
        if not child.returncode:
            ran = next(
                (line for line in lines if line.startswith("Done ")), "did not say how often"
            )
            reached = [line for line in lines if " cov: " in line]
            covered = reached[-1].split(" cov: ")[1].split()[0] if reached else "?"
            return False, f"{ran.removeprefix('Done ')}, {covered} places in the code reached"
        keep.mkdir(parents=True, exist_ok=True)
        for artifact in artifacts.iterdir():
            (keep / f"{name}-{artifact.name}").write_bytes(artifact.read_bytes())
        (keep / f"{name}.txt").write_text("\n".join(lines)[-_TAIL:])
        trouble = next((line for line in lines if "Error: " in line), f"exit {child.returncode}")
        return True, f"FOUND, see {keep}: {trouble[:300]}"


if __name__ == "__main__":
    sys.exit(main())
