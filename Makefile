# Everything runs in a private virtual environment that needs nothing but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One more than the two cores that the time is promised for: many tests wait.
WORKERS := -n 3 --dist loadgroup

.PHONY: demo serve test check fix bench soak lock clean

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
	$(BIN)/python -m tests.vectors.generate --check

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## one JSON line per claim; see benchmarks/README.md
	$(BIN)/python -m benchmarks

lock:  ## refresh the hashed lock files (needs uv)
	uv pip compile --generate-hashes --no-emit-index-url --no-header requirements/runtime.in -o requirements/runtime.txt
	uv pip compile --generate-hashes --no-emit-index-url --no-header -c requirements/runtime.txt requirements/dev.in -o requirements/dev.txt
	uv pip compile --generate-hashes --no-emit-index-url --no-header -c requirements/dev.txt requirements/build.in -o requirements/build.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
