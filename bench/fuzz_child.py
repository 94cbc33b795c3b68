"""Fuzz one decoder until the time is over: `python -m bench.fuzz_child NAME CORPUS [options of libFuzzer]`.

The process ends with status 0 if nothing was found. Run by bench.fuzz.
"""

import sys
import tracemalloc

import atheris

with atheris.instrument_imports(include=["dkfs"]):
    from bench.fuzz_decoders import DECODERS, check


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    program, name, *rest = sys.argv
    decoder = next(one for one in DECODERS if one.name == name)
    tracemalloc.start()
    atheris.Setup([program, *rest], lambda data: check(decoder, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
