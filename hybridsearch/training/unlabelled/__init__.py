"""Make training data of documents that have no queries."""
