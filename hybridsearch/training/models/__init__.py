"""What is trained: architectures, pooling, adapters, and how sparse a model becomes."""
