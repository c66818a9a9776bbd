"""Files of models and of training runs."""
