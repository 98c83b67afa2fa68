"""What people type: `python -m lib study`, `run`, `explain`, `lab`, `report`, `train`."""
