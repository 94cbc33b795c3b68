"""Numbers about a running mount, for Prometheus: counted without global state, served over HTTP."""
