"""Explanations under attack: how far a map moves, attacks on maps, manipulated networks."""
