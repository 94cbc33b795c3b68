"""The file system: what an operation does to the backing directory and to the log.  Synchronous."""
