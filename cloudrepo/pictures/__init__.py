"""Pictures of a slice: a graph of nodes and networks, where they stand, and one renderer a file. Pure."""
