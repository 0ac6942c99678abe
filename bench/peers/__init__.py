"""One script for each system that `bench/side_by_side.py` runs; each is started in an environment of its own."""
