"""Study 0: the Grad-CAM tour."""
