"""Documents on their way into an index, and indexes on their way to another engine."""
