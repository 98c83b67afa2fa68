"""A notebook, a profile's parameters, and what comes of them."""

from lib.runs.run import Run, start

__all__ = ["Run", "start"]
