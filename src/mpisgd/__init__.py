"""mpisgd: linear classifiers on sparse data by stochastic gradient descent over MPI ranks.

Importing the package starts nothing: MPI is initialised by `mpisgd.main` when it trains, not before.
"""

__version__ = "0.1.0"
