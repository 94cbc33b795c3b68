"""The dkfs command: one module for each command, named after it.

A command module has a docstring, which is its help, add_parser(), and run(args), which returns the exit status.
Only the module of the command that was named is imported.
"""
