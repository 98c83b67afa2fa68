"""`trained(config)`: a network, loaded from the cache or trained into it."""
