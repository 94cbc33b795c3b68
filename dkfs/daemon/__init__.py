"""The composition root: the only place that constructs the parts of a running dkfs."""
