"""python -m dkfs."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # python -m puts the current directory here.  Nothing is to be imported from there, least of all by a daemon
        # that serves it: it would wait for itself.
        del sys.path[0]

    try:
        from dkfs.cli.main import main

        status = main()
    except KeyboardInterrupt:  # before main could hear of it
        status = 130
    sys.exit(status)
