"""Random slices, and runs of `verify` over them."""
