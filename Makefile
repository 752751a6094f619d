# Needs Python 3.11, make and git; everything else is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
MLFLOW_PORT ?= 5000
SERVING_PORT ?= 8000
EXTRAS ?= async serving cuda pipeline postgres s3 tracing exports

# With it, each of the tests' processes would compile this project's modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup lock run loop test test-unit test-long test-conformance test-faults test-stores test-alerts test-cluster test-exports check-manifests audit fuzz mutants lint types docs docs-serve docs-check protos bench-serving bench-start bench-batching bench-protocols bench-play bench-training bench-scale bench-memory bench-recording bench-folder bench-experience bench-conversion clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: .venv/installed ## Install everything into .venv.

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "Python 3.11 is needed, $(PYTHON) is $$($(PYTHON) --version). Name one: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) lacks the venv module. On Debian: apt-get install python3.11-venv"; exit 1; }
	@echo "Installing into .venv (about 3 GB, some minutes the first time) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[pipeline,tracing,exports]' --group dev
	@touch .venv/installed

lock: setup ## Resolve the versions of all dependencies again: constraints.txt.
	@$(BIN)/python -m pip install --quiet --group lock
	@$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --python-version 3.11 --no-annotate \
		--extra pipeline --extra cuda --extra postgres --extra s3 --extra tracing --extra exports --group dev \
		--group benchmark --group docs --group protos --group stores --group audit \
		--custom-compile-command "make lock" --output-file constraints.txt

run: setup ## MLflow, a trained and promoted policy, a server, and a first query. Ctrl-C ends it.
	@$(BIN)/python -m pipeline journey --mlflow-port $(MLFLOW_PORT) --serving-port $(SERVING_PORT)

loop: setup ## A policy trained with too little is served, its clients report, and a better version takes over. Minutes.
	@$(BIN)/python -m examples.closed_loop $(OPTIONS)

# The tests mostly wait for servers, so files of tests run beside each other, three even on two cores.
test: setup ## All tests, the fault suite in short.
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-unit: setup ## The tests that take seconds.
	@$(BIN)/python -m pytest -m 'not (e2e or long or conformance or faults or stores or cluster or exports)'

test-long: setup ## Further cases of interrupted, lost and failing training.
	@$(BIN)/python -m pytest -m long

test-conformance: setup ## The conformance suite whole: a policy of each kind of space and network.
	@$(BIN)/python -m pytest -m 'conformance or not conformance' tests/pipeline/verification/test_suite.py tests/pipeline/learning/test_spaces.py

test-faults: setup ## The fault suite: kills, corrupt versions and outages under load.
	@$(BIN)/python -m pytest -m faults tests/faults

# They need PostgreSQL: apt-get install postgresql. Without it they are skipped.
test-stores: setup ## MLflow with PostgreSQL and S3: the journey, outages, and secrets. Needs Debian's postgresql.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[pipeline,postgres,s3,exports]' --group stores
	@$(BIN)/python -m pytest -m stores tests/stores

test-alerts: setup ## Each alert firing and not firing, and the queries of the dashboard. Needs promtool.
	@$(BIN)/python -m pytest tests/deploy/test_alerts.py

test-cluster: setup ## Faults of a Ray cluster of three nodes under load. Needs root, ip and redis-server.
	@$(BIN)/python -m pytest -m cluster tests/faults

# d3rlpy needs another Gymnasium than this project.
test-exports: setup ## RLlib, Minari and d3rlpy load exports of experience. Makes .venv-exports.
	@$(PYTHON) -m venv .venv-exports
	@.venv-exports/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@.venv-exports/bin/python -m pip install --quiet --group export-readers
	@$(BIN)/python -m pytest -m exports tests/pipeline/experience/exports

check-manifests: setup ## The manifests of deploy/kubernetes against KubeRay's schema: CRD=ray.io_rayservices.yaml.
	@$(BIN)/python deploy/kubernetes/check.py $(or $(CRD),$(error Name the file with the definition of RayService: \
		make check-manifests CRD=ray.io_rayservices.yaml. KubeRay has it in ray-operator/config/crd/bases))

# --strict: a package that the service does not know is a failure, too.
audit: setup ## A bill of materials (CycloneDX) of each extra in audit-report/, and known vulnerabilities. Needs the network.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group lock --group audit
	@mkdir -p audit-report
	@set -e; for extra in $(EXTRAS); do \
		$(BIN)/uv pip compile pyproject.toml --quiet --python-version 3.11 --no-header --no-annotate \
			--constraint constraints.txt --extra $$extra --output-file audit-report/$$extra.txt; \
		$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
			--output-file audit-report/$$extra.cdx.json audit-report/$$extra.txt; \
		echo "audit-report/$$extra.cdx.json: $$(wc -l < audit-report/$$extra.txt) packages"; \
	done
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt || { \
		echo "The audit failed: the lines above name a vulnerable package, or say that the vulnerability service of PyPI" \
			"did not answer or does not know a package."; exit 1; }

fuzz: setup ## 100,000 malformed requests over all routes of a real server.
	@$(BIN)/python -m tests.serving.fuzz

mutants: setup ## Put small faults into the code: at least 90% of them must make a test fail. Takes an hour.
	@$(BIN)/python -m tests.mutants

lint: setup ## ruff: rules and format.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## mypy, strict, on both packages.
	@$(BIN)/mypy

docs: setup ## Write the generated parts of the documents.
	@$(BIN)/python -m docs.generate

docs-serve: setup ## Serve the documents as a site on port 8002.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	@$(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8002

docs-check: setup ## Check the documents: commands, links, generated parts, and the site.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	@$(BIN)/python -m pytest tests/docs
	@$(BIN)/python -m mkdocs build --quiet --strict --site-dir "$$(mktemp -d)"

bench-serving: setup ## Our server beside its peers: a table, JSON and a plot in benchmarks/results/.
	@$(BIN)/python -m benchmarks.serving $(if $(QUICK),--quick)

bench-recording: setup ## What recording experience costs: our server with and without it, in interleaved rounds.
	@$(BIN)/python -m benchmarks.recording

bench-start: setup ## Cold start of our server and of the no-op Serve, and the seconds of each registry command.
	@$(BIN)/python -m benchmarks.start

bench-play: setup ## What viewers of /play cost other clients.
	@$(BIN)/python -m benchmarks.play

bench-conversion: setup ## What it costs to turn recorded decisions into Parquet, with the audit and without it.
	@$(BIN)/python -m benchmarks.conversion

bench-training: setup ## Training beside stable-baselines3 in six environments, seeds 0 to 2; continues where it was interrupted.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group benchmark
	@$(BIN)/python -m benchmarks.training $(OPTIONS)

bench-scale: setup ## Environment steps per second with 0 to 8 environment runners, as far as there are cores.
	@$(BIN)/python -m benchmarks.training_scale

bench-memory: setup ## Memory of a server and of training by part, and what each replica adds.
	@$(BIN)/python -m benchmarks.memory

bench-experience: setup ## Seconds and memory of compacting 1 and 10 million decisions, and of stats.
	@$(BIN)/python -m benchmarks.experience $(OPTIONS)

bench-folder: setup ## A folder that measures another machine, without network: benchmarks/results/bench-folder.
	@$(BIN)/python -m benchmarks.folder $(if $(CUDA),--cuda)

bench-protocols: setup ## What each protocol costs: native, Open Inference Protocol over HTTP and gRPC.
	@$(BIN)/python -m benchmarks.protocols

protos: setup ## Generate the module of serving/protocols/open_inference/protos anew.
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group protos
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. serving/protocols/open_inference/protos/*.proto

bench-batching: setup ## From which policy on dynamic batching pays.
	@$(BIN)/python -m benchmarks.batching

clean: ## Remove what setup, tests and `make run` made here, registered models included.
	rm -rf .venv .venv-exports .mypy_cache .pytest_cache .ruff_cache mlflow.db* mlartifacts mlruns mlflow-server.log \
		benchmarks/results faults-report audit-report loop-report
