"""Bring any image to the form of a model's training images.

The modules are imported one by one: `training.input_format` needs `ink_stats`, and the functions
that prepare images need `training.input_format`.
"""
