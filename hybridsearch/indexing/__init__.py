"""Storing documents in an index, and copying an index to another place."""
