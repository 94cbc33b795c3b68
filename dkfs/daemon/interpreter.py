"""How the interpreter is set up for serving: who gets it when, and when it looks for garbage."""

import gc
import sys
from typing import Final

# The recorder's thread computes while the loop serves: with the default of 5 ms each request would
# wait that long for the interpreter (docs/decisions/0003).
_SWITCH_INTERVAL_S: Final = 0.00005
# What waits for the recorder is 20 objects an operation and no garbage: looked through after every 700, as by default, it
# took 13 % of the time of creating, renaming and removing files; after so many, 3 % (docs/decisions/0018).
_GARBAGE_AFTER: Final = (10_000, 20, 20)


def begin() -> None:
    """Look for garbage seldom: what is imported, and compared with the last version, is none."""
    gc.set_threshold(*_GARBAGE_AFTER)


def set_up() -> None:
    """Set up the interpreter of a daemon that is about to serve."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()  # what was imported stays
    begin()
