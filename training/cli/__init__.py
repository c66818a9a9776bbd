"""The command line: its flags, and the flows of train, test, predict and find_lr."""
