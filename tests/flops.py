"""Exact floating-point operation counts, as the library counts them."""

from lib.system.flops import flops

__all__ = ["flops"]
