"""The parts that OpenSearch and Elasticsearch share: both are Lucene behind nearly the same HTTP interface."""
