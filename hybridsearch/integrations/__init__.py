"""The parts of other frameworks, made of `HybridSearch`. Each module needs the extra of its framework."""
