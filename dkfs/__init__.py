"""dkfs: a file system for containers that never forgets."""

__version__ = "0.1.0"
