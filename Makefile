# Everything runs in .venv against the installed wheel, never against the source tree: what is
# tested is what ships. Needs Python, make and a C++ compiler; the rest comes from pip.
#
#   make demo | test | check | bench | bench-steps | bench-end-to-end | bench-accuracy
#   make gpu-check | wheel | format | clean
#   PYTHON=python3.12   the interpreter that .venv is made with (make clean first to change it)
#   PYTEST_ARGS=...     further arguments for pytest in `make test`
#   CUDA_ARCHITECTURES=90   the GPUs that are compiled for where there is nvcc: here one, with PTX
#                       that newer ones take; all of them in wheels, at six times the time

PYTHON ?= python3
PYTEST_ARGS ?=
CUDA_ARCHITECTURES ?= 80
VENV := .venv
PY := $(VENV)/bin/python
WHEELS := build/wheel
OBJECTS := build/cmake
CONSTRAINTS := $(CURDIR)/constraints.txt
PEERS := build/peers

# Directories too: their times tell of added and deleted files.
SOURCES := $(shell find csrc cmake python -name __pycache__ -prune -o -print) \
           CMakeLists.txt pyproject.toml constraints.txt
CXX_FILES := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh')
PYTESTS := ./tests --pyargs fastllc --doctest-modules --numprocesses auto --maxprocesses 8
# Left to `make test` for time: laws of chains and checks of Python's side, the same from any build;
# and the benchmarks', which no wheel holds.
NOT_OF_WHEELS := bad_* stationary_* oracles_* accuracy automatic calibrate coverage mlp rescaling compat* \
    gpu_check bench_steps end_to_end engine_* torch_modes optimizer_contract schedulers divergence \
    store checkpoints llc

# The caller's environment must not change what is installed or imported. In the environment, the
# constraints also hold for what `build` installs. (Not PIP_BUILD_CONSTRAINT: newer pips refuse it
# together with --no-build-isolation.)
unexport PYTHONPATH PYTHONHOME PIP_BUILD_CONSTRAINT
export PYTHONNOUSERSITE := 1
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Plots are written to files.
export MPLBACKEND := Agg

INSTALL = $(PY) -m pip install --quiet

.PHONY: demo test check bench bench-steps bench-end-to-end bench-accuracy gpu-check wheel format clean
.DELETE_ON_ERROR:
# One thread to each of several processes: two that share a processor wait for each other.
test wheel: export OMP_NUM_THREADS = 1
# The wheel's stamps belong to one environment: nothing is gained from building it twice at once.
.NOTPARALLEL:

demo: $(VENV)/.extra-demo
	$(PY) -m fastllc demo

# "./tests": with --pyargs a bare "tests" could name an installed package.
test: $(VENV)/.extra-test
	$(PY) -m pytest $(PYTESTS) $(PYTEST_ARGS)

check: $(VENV)/.extra-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)
	$(PY) -m mypy
	$(PY) -m mypy.stubtest $$($(PY) -c "from importlib.util import find_spec; \
	    print(*filter(find_spec, ('fastllc._core', 'fastllc._cuda')))") \
	    --allowlist tools/stubtest-allowlist.txt --ignore-unused-allowlist
	$(PY) tools/check_isa.py $(OBJECTS)
	$(PY) tools/cuda_resources.py --check
	$(PY) -c "from importlib.metadata import distribution as d; d = d('fastllc'); \
	    assert d.metadata['License-Expression'] == 'MIT', d.metadata; \
	    assert any(f.name == 'LICENSE' for f in d.files), 'the wheel holds no LICENSE'"

format: $(VENV)/.extra-lint
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CXX_FILES)

# --no-deps: the part of devinterp measured against needs only torch and numpy.
bench: $(VENV)/.extra-bench
	$(INSTALL) --no-deps devinterp==2.0.1
	$(PY) -m fastllc bench

# The developers' tables: all samplers, precisions, memory, growth.
bench-steps: $(VENV)/.extra-bench
	$(INSTALL) --no-deps devinterp==2.0.1
	$(PY) -m bench.steps

# Whole estimates against packages that only this sees: they stay out of $(VENV).
bench-end-to-end: $(VENV)/.extra-bench $(PEERS)/.installed
	PYTHONPATH=$(PEERS) $(PY) -m bench.end_to_end

# What is in bench/results is not run again.
bench-accuracy: $(VENV)/.extra-bench $(PEERS)/.installed
	PYTHONPATH=$(PEERS) OMP_NUM_THREADS=1 $(PY) -m bench.accuracy

# On a machine with an NVIDIA GPU, with what is installed there and no network: in none of our
# environments, but with the PyTorch of $(PYTHON), which knows the GPU.
gpu-check:
	PYTHONNOUSERSITE= $(PYTHON) -m bench.gpu.check

# sdist, then the wheel from the sdist, then the tests against that wheel as a user has it: a new
# environment, no source tree, and a PATH without a compiler.
wheel: $(VENV)/.tools
	rm -rf dist build/user
	$(PY) -m build --outdir dist .
	$(PYTHON) -m venv build/user/venv
	build/user/venv/bin/python -m pip install --quiet "$$(echo dist/*.whl)[test]"
	tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && cp -r tests pyproject.toml "$$tmp" && \
	    cd "$$tmp" && PATH="$(CURDIR)/build/user/venv/bin" \
	    "$(CURDIR)/build/user/venv/bin/python" -m pytest $(PYTESTS) -m "not slow" \
	    $(foreach name,$(NOT_OF_WHEELS),--ignore-glob='tests/test_$(name).py')

clean:
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks

$(VENV)/.tools: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) build cmake ninja pybind11 scikit-build-core
	touch $@

# Without build isolation: the compiler sees the same paths each time, so a rebuild compiles only
# what changed.
$(VENV)/.installed: $(SOURCES) $(VENV)/.tools
	rm -rf $(WHEELS)
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation \
	    --config-settings=build-dir=$(OBJECTS) --wheel-dir $(WHEELS) \
	    --config-settings=cmake.define.FASTLLC_EMULATED=ON \
	    --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES) .
	$(PY) -m pip uninstall -qqq --yes fastllc
	$(INSTALL) $(WHEELS)/*.whl
	touch $@

# The constraints name another devinterp.
$(PEERS)/.installed: bench/end_to_end/peers.txt | $(VENV)/.tools
	rm -rf $(PEERS)
	PIP_CONSTRAINT= $(INSTALL) --no-deps --target $(PEERS) --requirement $<
	touch $@

$(VENV)/.extra-%: pyproject.toml constraints.txt | $(VENV)/.installed
	$(INSTALL) "$$(echo $(WHEELS)/*.whl)[$*]"
	touch $@
