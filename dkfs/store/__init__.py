"""The store: everything dkfs keeps on disk, and the only package that imports lmdb, blake3 and zstandard."""

from dkfs.store.reader import Reader
from dkfs.store.store import Store, StoreSize
from dkfs.store.writer import Put, Writer

__all__ = ["Put", "Reader", "Store", "StoreSize", "Writer"]
