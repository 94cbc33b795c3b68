"""How small histories are: the same versions kept by dkfs and by others, all in one run."""
