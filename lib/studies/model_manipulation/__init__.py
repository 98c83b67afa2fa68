"""Study 4: fooling explanations by manipulating the model (Heo et al. 2019)."""
