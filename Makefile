# Everything runs in a private virtual environment that needs nothing but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHONS := 3.12 3.13 3.14
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)
# Two more than the two cores that the time is promised for: many tests wait.
WORKERS := -n 4 --dist loadgroup

# What a test has compiled, the processes that it starts need not compile again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo serve test check fix bench bench-scale soak pythons units lock clean

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Callvault needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## stream, play, hold, expire and certify real calls, narrated
	$(BIN)/callvault demo

serve: $(STAMP)  ## initialise ./data once, then serve it with config.toml
	@test -e data || $(BIN)/callvault init --config config.toml
	$(BIN)/callvault serve --config config.toml

test: $(STAMP)  ## every test, the long ones as a sample; CALLVAULT_SEED draws that of another day
	$(BIN)/python -m pytest $(WORKERS)

soak: $(STAMP)  ## the long tests, whole
	CALLVAULT_SOAK=1 $(BIN)/python -m pytest $(WORKERS) -m soak

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.dead_code
	$(BIN)/python -m tests.vectors.generate --check

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## one JSON line per claim; see benchmarks/README.md
	$(BIN)/python -m benchmarks

ACTS_OF_SCALE := lists sweeps trails holds http

bench-scale: $(STAMP)  ## acts in a catalog of a million recordings, or RECORDINGS=10000000; ACTS=backups takes longer
	timeout $(if $(RECORDINGS)$(ACTS),0,600) $(BIN)/python -m benchmarks.scale --objects --acts $(or $(ACTS),$(ACTS_OF_SCALE)) $(addprefix --recordings ,$(RECORDINGS))

pythons:  ## unit and contract tests and the demo on each further Python that is here, in an environment of its own
	@for version in $(PYTHONS); do for found in python$$version $(PYENV)/versions/$$version.*/bin/python; do \
	  if "$$found" -c '' 2>/dev/null; then echo "Python $$version: $$found"; \
	    $(MAKE) --no-print-directory units demo PYTHON="$$found" VENV=.venv-$$version || exit 1; break; fi; done; done

units: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS) tests/unit tests/contract

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock:  ## refresh the hashed lock files, which are for every Python (needs uv)
	$(LOCK) requirements/runtime.in -o requirements/runtime.txt
	$(LOCK) -c requirements/runtime.txt requirements/dev.in -o requirements/dev.txt
	$(LOCK) -c requirements/dev.txt requirements/build.in -o requirements/build.txt

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
