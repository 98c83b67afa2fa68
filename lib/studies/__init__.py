"""The studies, a folder a notebook, all alike: plan, measure, claims, explorer, and the paper's own equations."""
