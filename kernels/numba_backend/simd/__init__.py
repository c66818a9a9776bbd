"""Vector instructions, register tiles, matrix products made of them, and small shared kernels."""
