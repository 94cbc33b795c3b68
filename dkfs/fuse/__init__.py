"""Adapters: they translate between the kernel and the overlay, and hold no behaviour."""
