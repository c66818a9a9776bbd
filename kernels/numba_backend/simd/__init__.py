"""Vector instructions, register tiles, and matrix products made of them."""
