"""What people read: the report of a run, the ledger and the index."""
