"""Reports of a training run: lines, a log, a history and plots."""
