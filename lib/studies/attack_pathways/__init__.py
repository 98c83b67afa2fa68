"""Study 6: attack pathways through a network (Das et al. 2020)."""
