"""The kernel engine: dkfs speaks the FUSE protocol on /dev/fuse itself."""
