"""Networks under one contract, and what looks inside them."""
