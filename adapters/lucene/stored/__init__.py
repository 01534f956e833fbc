"""The content of an index: the stored documents, the mapping, and the schema in the mapping's `_meta`."""
