"""Load models and change them for training: architectures, pooling, adapters and sparsity."""
