"""`python -m hybridsearch` is the program `hybridsearch`."""

from hybridsearch.cli.app import main

if __name__ == "__main__":
    main()
