"""Attack pathways through a network: neurons, what influences them, and the graph."""
