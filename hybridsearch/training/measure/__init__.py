"""What a run is measured by, and what is said about it."""
