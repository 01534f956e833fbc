"""Searching: translates requests and filters to the query language of OpenSearch and Elasticsearch."""
