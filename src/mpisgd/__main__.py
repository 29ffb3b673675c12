"""`python -m mpisgd` is the same as the `mpisgd` command."""

from mpisgd.main import entry_point

if __name__ == "__main__":
    entry_point()
