"""Hard negatives: finding them, choosing among them, and the folder that keeps them."""
