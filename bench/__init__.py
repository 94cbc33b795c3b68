"""The speed of a raw directory, a plain pass-through and dkfs, side by side; `python -m bench`."""
