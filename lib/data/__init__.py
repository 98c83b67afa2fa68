"""Data sets, images, and what is done to them."""
