"""Where a daemon in the background logs if nobody said where: a file in its store, of bounded size."""

import io
import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

LOG_NAME: Final = "daemon.log"
_MOST: Final = 1 << 20  # bytes of the file, and of the one before it

FORMAT: Final = "%(asctime)s dkfs[%(process)d] %(levelname)s %(name)s: %(message)s"


class _OwnFile(RotatingFileHandler):
    """A log that nobody else reads, whatever the umask is."""

    def _open(self) -> io.TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return open(os.open(self.baseFilename, flags, 0o600), "a", encoding="utf-8")


def log_in(store: Path, level: int) -> None:
    """Log what is of *level* or worse in *store* too; the file is made with the first line."""
    handler = _OwnFile(store / LOG_NAME, maxBytes=_MOST, backupCount=1, delay=True)
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.getLogger().addHandler(handler)
