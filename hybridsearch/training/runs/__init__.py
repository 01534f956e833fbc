"""A training run: started, continued after a kill, and recorded."""
