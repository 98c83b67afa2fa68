"""What people type: `python -m lib study`, `run`, `explain`, `report`, `train`."""
