"""Attacks on decisions."""
