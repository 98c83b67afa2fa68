"""Study 1: Grad-CAM attention shift under attack (Chakraborty et al. 2022)."""
