"""The history: records what happens, and shows, compares, restores and rolls back what happened."""
