"""What OpenSearch and Elasticsearch have in common: both are Lucene behind nearly the same HTTP interface."""
