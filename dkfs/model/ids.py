"""Identifiers: distinct types, so that a swapped argument is a type error."""

from typing import NewType

Seq = NewType("Seq", int)  # a version: position in the log; 1, 2, 3 ...; 0 = before everything
NodeId = NewType("NodeId", int)  # a file, directory, ... over its whole life; never reused
BlobId = NewType("BlobId", bytes)  # 32 bytes: hash of a blob's plain form

ROOT = NodeId(1)  # the root directory, in every store
NO_NODE = NodeId(0)  # in an entry record: the name was removed
