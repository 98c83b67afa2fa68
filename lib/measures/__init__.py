"""Measures of maps."""
