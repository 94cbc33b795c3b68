"""The store: everything dkfs keeps on disk, and the only package that imports lmdb, the hash and the compressors."""

from dkfs.store.encoders import EncodingPolicy
from dkfs.store.reader import Reader
from dkfs.store.store import Store, StoreSize, is_absent
from dkfs.store.writer import Put, Writer

__all__ = ["EncodingPolicy", "Put", "Reader", "Store", "StoreSize", "Writer", "is_absent"]
