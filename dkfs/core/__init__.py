"""Pure rules and records: nothing here reaches outside the process."""
