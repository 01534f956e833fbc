"""Domain adaptation: read data, mine negatives, distil, train dense, sparse and reranking models, report."""
