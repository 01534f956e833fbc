"""Searching: requests and filters as the query language of Lucene has them."""
