"""The command line: its flags, and one module for each action of run.py."""
