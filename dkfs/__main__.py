"""python -m dkfs."""

import sys

from dkfs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
