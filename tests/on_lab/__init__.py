"""Tests of the product on the lab: real hosts, real guests. `cluster.py` is what they stand on."""
