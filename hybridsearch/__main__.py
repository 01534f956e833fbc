"""`python -m hybridsearch` runs the program `hybridsearch`."""

from hybridsearch.cli.app import main

if __name__ == "__main__":
    main()
