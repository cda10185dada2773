"""Measurements, each run by `./cloud bench NAME`; results are in README.md."""
