"""Files of other tools as topologies, and in words what a topology cannot say of them. Pure; one module a format."""
