"""What people type, a module a command: `python -m lib study`, `run`, `explain`, `lab`, `report`, `readme`, `rehearse`, and
`train` and `measure`, which `study` calls."""
