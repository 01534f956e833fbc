"""The HTTP service: `hybridsearch serve`."""
