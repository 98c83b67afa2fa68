"""Study 5: saliency-based adversarial training (Mangla et al. 2020)."""
