"""What people type: `python -m lib study`, `run`, `report`, `train`."""
