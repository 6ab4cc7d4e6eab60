# Every command that a person or CI runs. All of them create what they need: `make demo` on a fresh machine is enough.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
TYPESCRIPT := 7.0.2
TSC := npm exec --yes --package=typescript@$(TYPESCRIPT) -- tsc
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup demo train serve test lint bench-paper bench-train bench-graphs bench-others bench-quality bench-serve fuzz \
	pictures format clean

setup: $(VENV)/.ready

# The stamp is touched last, so that an interrupted installation is taken up again.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "kronmodel needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned requirements into $(VENV) (about a minute) ..."
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --progress-bar on \
		--constraint constraints.txt --editable '.[train,dev]'
	@touch $@

# The port is checked first: nobody wants to hear that it is taken after the training.
demo: setup
	@$(BIN)/kronserve check-port --host $(HOST) --port $(PORT)
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	@$(BIN)/kronserve --models models --host $(HOST) --port $(PORT)

# The name is given because offline the data is not the whole of MNIST, and would give the twin another one.
train: setup
	@$(BIN)/kronmodel train --data mnist --name mnist --out models

serve: setup
	@$(BIN)/kronserve --models models --host $(HOST) --port $(PORT)

# A browser on the PATH is taken as it is; where there is none, Playwright fetches its own if it can.
test: setup
	@for browser in chromium chromium-browser google-chrome; do command -v $$browser >/dev/null && exit 0; done; \
		timeout 600 $(BIN)/playwright install chromium || echo "no browser to be had; the browser tests will say so" >&2
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if $(TSC) --version >/dev/null 2>&1; then echo "$(TSC)"; $(TSC) --project jsconfig.json; \
		else echo "the page's types are not checked: no npm here, or it cannot fetch typescript $(TYPESCRIPT)" >&2; fi

# The published accuracies beside ours, three seeds each.
bench-paper: setup
	$(BIN)/python -m benchmarks.paper

# Time of a training step beside dense and low-rank; a quiet machine, please.
bench-train: setup
	$(BIN)/python -m benchmarks.train

# The exported files in onnxruntime at one thread, dense beside Kronecker; a quiet machine, please.
bench-graphs: setup
	$(BIN)/python -m benchmarks.graphs

# The same network with other libraries' layers, each library in an environment of its own.
bench-others:
	@for library in tensorly-torch pyfastkron; do \
		test -e build/envs/$$library/.ready || { rm -rf build/envs/$$library && $(PYTHON) -m venv build/envs/$$library && \
			build/envs/$$library/bin/python -m pip install --quiet --constraint benchmarks/others.txt numpy torch $$library \
			&& touch build/envs/$$library/.ready; } && \
		build/envs/$$library/bin/python -m benchmarks.others $$library || exit 1; done

# Accuracy for the weights, on MNIST and Fashion-MNIST.
bench-quality: setup
	$(BIN)/python -m benchmarks.quality

# Our service beside others, each in its own environment under build/envs; needs wrk, and a quiet machine.
bench-serve: setup
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	$(BIN)/python -m benchmarks.serve

# Requests that schemathesis makes up from the OpenAPI document, against the real service; FUZZ="--seconds 60" is shorter.
fuzz: setup
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	@test -e build/envs/fuzz/.ready || { rm -rf build/envs/fuzz && $(PYTHON) -m venv build/envs/fuzz && \
		build/envs/fuzz/bin/python -m pip install --quiet --constraint constraints.txt --requirement tests/fuzz/requirements.txt \
		&& touch build/envs/fuzz/.ready; }
	$(BIN)/python -m tests.fuzz --schemathesis build/envs/fuzz/bin/schemathesis $(FUZZ)

# The pictures of docs/, of the twin in models/; needs a browser.
pictures: setup
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	$(BIN)/python -m tests.browser.pictures

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist models .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
