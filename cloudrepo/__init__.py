"""What the documented rooms stand on: pure decisions, and the runner that acts on hosts.

Nothing here imports a top-level module. Imports inside the package point one way, from `reconcile`
down to `errors`; `tests/test_architecture.py` keeps it so.
"""

__version__ = "0.1.0"
