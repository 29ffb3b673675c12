"""Builds the compiled kernel; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "mpisgd._kernel",
            sources=["src/mpisgd/_kernel.c"],
            # Vectorised, the loads of scattered weights are slower than plain ones. Fused multiply-adds would make the
            # bits depend on the machine that compiled.
            extra_compile_args=["-O2", "-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-ffp-contract=off"],
            extra_link_args=["-lm"],
            py_limited_api=True,
            optional=True,  # without a compiler the package installs all the same; its NumPy and SciPy way is slower
        )
    ]
)
