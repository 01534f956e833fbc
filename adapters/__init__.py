"""The engines. Import name: `hybridsearch.adapters`."""

if __name__ != "hybridsearch.adapters":
    raise ImportError(
        f"This package is imported as 'hybridsearch.adapters', not as {__name__!r}: install the project first."
    )
