"""Training data from documents that nobody has asked for yet."""
