"""Study 3: interpretability-aware robust training (Boopathy et al. 2020)."""
