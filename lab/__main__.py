"""``python -m lab``: the lab's command line without the rest of the project."""

from lab.cli import app

if __name__ == "__main__":
    app()
