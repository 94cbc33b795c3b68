"""The nouns of dkfs: frozen records and identifiers; no behaviour beyond derived values."""
