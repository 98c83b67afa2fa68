"""Files, places, devices, progress."""
