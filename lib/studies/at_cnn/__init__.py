"""Study 2: what adversarially trained CNNs look at (Zhang and Zhu 2019)."""
