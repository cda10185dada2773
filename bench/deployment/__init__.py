"""What `bench/deploy.py` is made of: the slice that is measured, and three ways to bring it up."""
