"""Files that a model and a training run are saved in."""
