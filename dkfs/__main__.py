"""python -m dkfs, and the program dkfs."""

import sys


def main() -> int:
    """Run dkfs with the words of the process; return the exit status."""
    try:
        from dkfs.cli.main import main as run  # noqa: PLC0415 - takes 30 ms, in which one may press Ctrl-C

        return run()
    except KeyboardInterrupt:  # before main could hear of it
        return 130


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # python -m puts the current directory here.  Nothing is to be imported from there, least of all by a daemon
        # that serves it: it would wait for itself.
        del sys.path[0]
    sys.exit(main())
