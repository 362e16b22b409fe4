"""The tests: ``python3 -m unittest`` from the repository's root."""
