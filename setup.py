"""Builds the compiled loops; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "mpisgd._kernel",
            sources=[
                "src/mpisgd/_kernel.c",
                "src/mpisgd/_vectors.c",
                "src/mpisgd/_exchange.c",
                "src/mpisgd/_locks.c",
                "src/mpisgd/_hogwild.c",
                "src/mpisgd/_turns.c",
            ],
            depends=["src/mpisgd/_kernel.h"],
            # Only loops marked so are vectorised: where loads are scattered it costs more than it gains. Fused
            # multiply-adds would make the bits depend on the machine that compiled.
            extra_compile_args=["-O2", "-fno-tree-slp-vectorize", "-fopenmp-simd", "-ffp-contract=off", "-pthread"],
            extra_link_args=["-lm", "-pthread"],
            py_limited_api=True,
            optional=True,  # without a compiler the package installs all the same; its NumPy and SciPy way is slower
        )
    ]
)
