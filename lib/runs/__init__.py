"""A notebook, a profile's parameters, and what comes of them."""
