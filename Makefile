# Every target sets up what it needs; `make help` lists them. CI runs the same targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
export PYTHONUNBUFFERED := 1

# What is given with a target is text: taken as it is written, and given to the commands by the environment, where no shell reads it.
GIVEN := ACTION ASSET AT BASE DEEP FORCE FORM FORMAT FROM FULL HEAD HTML JOB JSON KEY LAYER LIMIT NAME NETWORK ON ONLY PACKAGE PARTS PERSONAL PORT Q REASON ROWS RUN SCHEDULE SELECT SHEET SOURCE TABLE TARGET TIMES TIMEZONE TO UNTIL URL VERSION WITH YES
$(foreach name,$(GIVEN),$(if $(filter-out undefined,$(origin $(name))),$(eval override $(name) := $$(value $(name)))$(eval export $(name))))

# A name without dot and slash is a command, not a file.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

# --- set-up -----------------------------------------------------------------------------------------------------------
help: ## List the targets
	@awk -F ':.*## ' '/^# --- / {gsub(/^# --- | -+$$/, ""); part = $$0} /^[a-z-]+:.*## / {if (part) print "\n" part; part = ""; printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(VENV)/.base: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[sample]'
	@touch $@

# MLflow and scikit-learn, for the job mlops only
$(VENV)/.ml: $(VENV)/.base
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[sample,ml]'
	@touch $@

# Streamlit, for the dashboard only
$(VENV)/.dashboard: $(VENV)/.base
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[sample,dashboard]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[sample,dev,ml,production,alerts,ingest,dashboard,containers,deploy]'
	@touch $@

$(VENV)/.stack: $(VENV)/.dev
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[sample,dev,ml,production,alerts,ingest,dashboard,containers,deploy,spark,mysql]'
	@touch $@

# podman-compose, for make compose-up only
$(VENV)/.deploy: $(VENV)/.base
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[sample,deploy]'
	@touch $@

# One DAGSTER_HOME for Make, shell and UI: Dagster's commands and ours read it from .env in this folder.
.env: | $(VENV)/.base
	@echo 'DAGSTER_HOME=$(CURDIR)/data/dagster' > $@

data/dagster/dagster.yaml: dagster.yaml | .env
	@home=$$(sed -n 's/^DAGSTER_HOME=//p' .env); mkdir -p "$$home" data/dagster && cp dagster.yaml "$$home/dagster.yaml" && touch $@

setup: $(VENV)/.base data/dagster/dagster.yaml ## Make .venv, .env and Dagster's home

doctor: setup ## Are the locations of the settings there, and safe to write? DEEP=1 looks at every file of every table
	@$(BIN)/python -m lakehouse doctor $(if $(DEEP),--deep "$$DEEP")

connector: setup ## Install one of Airbyte's connectors: NAME=loja PACKAGE=airbyte-source-faker [WITH=python3.11]
	@$(BIN)/python -m lakehouse connector "$$NAME" "$$PACKAGE" $(if $(WITH),--python "$$WITH")

# Whether nobody has said where landed files are: then the sample is written, and its stubs stand in for the sources.
SAMPLE := [ -z "$$LAKEHOUSE_LANDING" ] && ! grep -qs '^LAKEHOUSE_LANDING=.' .env

AS_JSON = $(if $(JSON),--json)

# --- use --------------------------------------------------------------------------------------------------------------
run: setup ## Sample landing, every table, the report: from nothing to a lakehouse
	@$(BIN)/python -m lakehouse run $$(if $(SAMPLE); then echo '--sample 1'; fi)

brt-feed: setup ## A simulated BRT feed on http://127.0.0.1:8765/gps/brt, for LAKEHOUSE_BRT_URL: [PORT=8765]
	@$(BIN)/python -m lakehouse.sample.brt serve $(if $(PORT),--port "$$PORT")

sample: setup ## Write the sample landing zone only
	@$(BIN)/python -m lakehouse.sample

dev: setup ## Dagster UI on http://127.0.0.1:3000
	@$(BIN)/dagster dev --host 127.0.0.1 --port 3000

dashboard: setup $(VENV)/.dashboard ## Pages for people on http://127.0.0.1:8501: [PORT=8502]
	@$(BIN)/python -m lakehouse dashboard $(if $(PORT),--port "$$PORT")

trigger: setup $(if $(filter mlops,$(JOB)),$(VENV)/.ml) ## Run a job here: JOB=medallion_etl [SOURCE=vendas TARGET=vendas_processed] [TABLE=pedidos_db/pedidos] [FULL=1] [FROM=2026-01-01] [UNTIL=2026-02-01] [TIMES=10] [JSON=1]
	@$(BIN)/python -m lakehouse trigger "$$JOB" $(if $(SOURCE),--source-table "$$SOURCE") $(if $(TARGET),--target-table "$$TARGET") $(if $(TABLE),--stream "$$TABLE") $(if $(FULL),--full "$$FULL") $(if $(FROM),--since "$$FROM") $(if $(UNTIL),--until "$$UNTIL") $(if $(TIMES),--times "$$TIMES") $(AS_JSON)

materialize: setup ## Materialise assets here: SELECT='group:vendas'
	@$(BIN)/python -m lakehouse materialize "$$SELECT"

summary: setup ## What is in the lake
	@$(BIN)/python -m lakehouse summary

sql: setup ## The lake in SQL, read-only: a shell, or Q='select * from gold.vendas_diarias' [FORMAT=csv] [AT=2026-11-20] [PERSONAL=1]
	@$(BIN)/python -m lakehouse sql $(if $(Q),--query "$$Q") $(if $(FORMAT),--format "$$FORMAT") $(if $(AT),--at "$$AT") $(if $(PERSONAL),--personal "$$PERSONAL")

lake-file: setup ## A DuckDB file with a view of every table, for DBeaver or Metabase: [LAYER=silver,gold] [PERSONAL=1]
	@$(BIN)/python -m lakehouse lake-file $(if $(LAYER),--layer "$$LAYER") $(if $(PERSONAL),--personal "$$PERSONAL")

metrics: setup ## Runs, tables, topics, services as Prometheus text: [PORT=9464] serves them
	@$(BIN)/python -m lakehouse metrics $(if $(PORT),--port "$$PORT")

# --- tables -----------------------------------------------------------------------------------------------------------
table: setup ## From anyone's file to a silver table: FROM=vendas.csv [NAME=vendas_loja] [SHEET=Plan1] [YES=1]
	@$(BIN)/python -m lakehouse table "$$FROM" $(if $(NAME),--name "$$NAME") $(if $(SHEET),--sheet "$$SHEET") $(if $(YES),--yes "$$YES")

connect: setup ## What an API (openapi.json) or a database has, and a source file for what is named: URL=postgresql://user@host/db [TABLE=pedidos,clientes] [NAME=filial] [YES=1]
	@$(BIN)/python -m lakehouse connect "$$URL" $(if $(TABLE),--table "$$TABLE") $(if $(NAME),--name "$$NAME") $(if $(YES),--yes "$$YES")

adopt: setup ## The Delta tables of another lake, and a silver table of each chosen one: FROM=s3://lake/silver [TABLE=vendas,clientes] [NAME=vendas_antiga] [TIMEZONE=America/Sao_Paulo] [YES=1]
	@$(BIN)/python -m lakehouse adopt "$$FROM" $(if $(TABLE),--table "$$TABLE") $(if $(NAME),--name "$$NAME") $(if $(TIMEZONE),--timezone "$$TIMEZONE") $(if $(YES),--yes "$$YES")

rebuild: setup ## Compute a silver table again from all of bronze: TABLE=vendas
	@$(BIN)/python -m lakehouse rebuild "$$TABLE" $(if $(REASON),--reason "$$REASON") $(if $(ACTION),--action "$$ACTION")

quarantine: setup ## What was delivered and is not in the tables: TABLE=vendas [LIMIT=20]
	@$(BIN)/python -m lakehouse quarantine "$$TABLE" $(if $(LIMIT),--limit "$$LIMIT")

redrive: setup ## Validate that again, after a rule or a file was corrected: TABLE=vendas
	@$(BIN)/python -m lakehouse redrive "$$TABLE"

release: setup ## Take in the batch that a rule stops: TABLE=vendas REASON='...' [ACTION=accept]
	@$(BIN)/python -m lakehouse release "$$TABLE" "$$REASON" $(if $(ACTION),--action "$$ACTION")

compare: setup ## Does another Delta table, or every one of another lake, have the same rows as silver? [TABLE=vendas] WITH=s3://silver [TIMEZONE=America/Sao_Paulo] [JSON=parity.json] [HTML=parity.html]
	@$(BIN)/python -m lakehouse compare $(if $(TABLE),"$$TABLE") "$$WITH" $(if $(TIMEZONE),--timezone "$$TIMEZONE") $(if $(JSON),--json "$$JSON") $(if $(HTML),--html "$$HTML")

diff: setup ## What a table has had added, removed and changed: TABLE=vendas_diarias FROM=2026-11-20 [TO=p12]; FROM and TO also 7 (a version), 3f2a9b (a run)
	@$(BIN)/python -m lakehouse diff "$$TABLE" --from "$$FROM" $(if $(TO),--to "$$TO")

replay: setup ## What a run made, computed again from what it had read, and compared: [RUN=3f2a9b] [ASSET=gold/vendas_diarias]
	@$(BIN)/python -m lakehouse replay $(if $(RUN),"$$RUN") $(if $(ASSET),--asset "$$ASSET")

# --- maintenance (docs/operations.md) ---------------------------------------------------------------------------------
vacuum: setup ## What the next maintenance would remove, and what it keeps and why: [TABLE=vendas]
	@$(BIN)/python -m lakehouse vacuum $(if $(TABLE),"$$TABLE")

retention: setup ## What is older than its table declares, and would go with the next maintenance: [TABLE=vendas]
	@$(BIN)/python -m lakehouse retention $(if $(TABLE),"$$TABLE")

pin: setup ## Keep a version of a table readable: TABLE=vendas VERSION=7 REASON='...'
	@$(BIN)/python -m lakehouse pin "$$TABLE" $(if $(VERSION),--version "$$VERSION") "$$REASON"

unpin: setup ## Let go of a pinned version: TABLE=vendas VERSION=7
	@$(BIN)/python -m lakehouse unpin "$$TABLE" $(if $(VERSION),--version "$$VERSION")

rollback: setup ## Let a silver or gold table be what it was at a version: TABLE=vendas VERSION=7 REASON='...'
	@$(BIN)/python -m lakehouse rollback "$$TABLE" $(if $(VERSION),--version "$$VERSION") "$$REASON"

rollback-model: setup $(VENV)/.ml ## Let the champion before this one forecast again
	@$(BIN)/python -m lakehouse rollback-model

forget: setup ## Erase one subject from tables, history, landing and backups: TABLE=clientes KEY=12345 REASON='...'
	@$(BIN)/python -m lakehouse forget "$$TABLE" "$$KEY" "$$REASON"

backup: setup ## Back up every table and database to LAKEHOUSE_BACKUP_ROOT, and prove it
	@$(BIN)/python -m lakehouse backup

prove: setup ## Restore all of a backup to a scratch folder, and compare: [AT=20261121]
	@$(BIN)/python -m lakehouse prove $(if $(AT),--at "$$AT")

restore: setup ## Put a table back as it was in a backup: TABLE=vendas [AT=20261121] [FORCE=1]
	@$(BIN)/python -m lakehouse restore "$$TABLE" $(if $(AT),--at "$$AT") $(if $(FORCE),--force "$$FORCE")

restore-all: setup ## Put every table of a backup back: [AT=20261121] [FORCE=1]
	@$(BIN)/python -m lakehouse restore-all $(if $(AT),--at "$$AT") $(if $(FORCE),--force "$$FORCE")

# --- Dagster in the background (docs/commands.md) ---------------------------------------------------------------------
start: setup ## Dagster's webserver and daemon in the background, for this DAGSTER_HOME: [PORT=3000]
	@$(BIN)/python -m lakehouse start $(if $(PORT),--port "$$PORT") $(AS_JSON)

stop: setup ## Stop what make start has started, and its children
	@$(BIN)/python -m lakehouse stop $(AS_JSON)

status: setup ## What runs, schedules with their next and last runs and average duration: [JSON=1]
	@$(BIN)/python -m lakehouse status $(AS_JSON)

health: setup ## Is all well? Places, services, daemons, schedules, last runs, age of the tables: [JSON=1]
	@$(BIN)/python -m lakehouse health $(AS_JSON)

init: setup ## Switch on the schedules and sensors of this environment: [JSON=1]
	@$(BIN)/python -m lakehouse init $(AS_JSON)

schedules: setup ## List schedules and sensors, or switch one: [SCHEDULE=medallion_etl_daily ON=1] [JSON=1]
	@$(BIN)/python -m lakehouse schedules $(if $(SCHEDULE),"$$SCHEDULE") $(if $(ON),--on "$$ON") $(AS_JSON)

logs: setup ## A run's log, and what its steps printed; the newest run without RUN: [RUN=3f2a9b] [JSON=1]
	@$(BIN)/python -m lakehouse logs $(if $(RUN),"$$RUN") $(AS_JSON)

# --- the real parts, on 127.0.0.1 (docs/deployment.md) ----------------------------------------------------------------
stack-install: setup $(VENV)/.stack ## Fetch S3, PostgreSQL, Kafka and MLflow by package name: [PARTS="s3 postgres"]
	@$(BIN)/python -m deploy.stack install $$PARTS

stack: ## Start them, and Dagster on them; returns when every part answers: [PARTS="s3 postgres"]
	@test -e $(VENV)/.stack || { echo 'Run make stack-install first.' >&2; exit 1; }
	@$(BIN)/python -m deploy.stack up $$PARTS

stack-status: setup ## Which part of the stack answers, and what was started again and why
	@$(BIN)/python -m deploy.stack status

stack-env: setup ## What a shell needs to use the stack: eval "$$(make -s stack-env)"
	@$(BIN)/python -m deploy.stack env

stack-down: setup ## Stop what make stack started
	@$(BIN)/python -m deploy.stack down

spark-jars: ## Jars with which Spark reads the Delta tables of others, and S3, into .stack/jars
	@mvn --quiet --batch-mode --file deploy/spark/pom.xml dependency:copy-dependencies -DoutputDirectory='$(CURDIR)/.stack/jars'

# --- containers (docs/deployment.md) -----------------------------------------------------------------------------------
image-tools: ## Install podman and what it needs (Debian, as root)
	@$(PYTHON) -m deploy.containers tools

image: ## Build the images with podman or docker: [BASE=debian, where no registry is reached] [PARTS="base ml"]
	@$(PYTHON) -m deploy.containers image $$PARTS

compose-up: $(VENV)/.deploy ## Start deploy/compose.yaml on these images; returns when every service is healthy: [NETWORK=host]
	@$(BIN)/python -m deploy.containers up $$NETWORK

compose-status: ## Which service of it is healthy
	@$(PYTHON) -m deploy.containers status

compose-down: $(VENV)/.deploy ## Stop it; data stays in the volumes
	@$(BIN)/python -m deploy.containers down

# --- develop (CONTRIBUTING.md) ----------------------------------------------------------------------------------------
test: setup $(VENV)/.dev ## Hermetic tests, and those over LAKEHOUSE_REAL_DATA where it is
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m 'not slow and not browser and not faults and not power and not stack and not spark and not containers'

test-browser: setup $(VENV)/.dev ## Pages and the UI in headless Chromium
	@$(BIN)/python -m pytest -m browser

test-faults: setup $(VENV)/.dev ## 200 kills, full disks, read errors: what is lost and doubled (10 minutes)
	@$(BIN)/python -m pytest -m faults lakehouse_tests/faults

test-power: setup $(VENV)/.dev ## Power cuts at every moment, writers in every order: what is lost, doubled or stuck (15 minutes; Linux with FUSE)
	@command -v fusermount >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq fuse3 libfuse2 >/dev/null; } || \
		{ echo 'Install FUSE first: apt-get install fuse3 libfuse2 (as root).' >&2; exit 1; }
	@$(BIN)/python -m pytest -m power lakehouse_tests/faults/power

# What Spark computes is one process's, whose JVM is warm; servers are waited for beside it. A Spark cluster needs both cores to start.
CLUSTERS := lakehouse_tests/end_to_end/test_spark_cluster.py lakehouse_tests/stack/test_s3_cluster.py
test-stack: stack-install ## S3 with faults, the production instance, Spark: real parts, started on free ports and stopped
	@$(BIN)/python -m deploy.stack install mariadb
	@$(BIN)/python -m pytest --durations 20 $(CLUSTERS:%=--ignore=%) -m 'spark and not slow' > .stack/spark.txt 2>&1 & spark=$$!; \
	trap 'kill $$spark 2>/dev/null; true' EXIT; \
	$(BIN)/python -m pytest --durations 20 -n 2 --dist loadfile -m 'stack and not spark and not slow'; servers=$$?; \
	wait $$spark; engine=$$?; cat .stack/spark.txt; \
	$(BIN)/python -m pytest --durations 20 -m 'not slow' $(CLUSTERS); exit $$((servers || engine || $$?))

test-image: setup $(VENV)/.dev ## Build the image that the other images begin with, and run a job in it (podman or docker)
	@$(BIN)/python -m deploy.containers image base
	@$(BIN)/python -m pytest -m containers lakehouse_tests/containers/test_image.py

test-containers: setup $(VENV)/.dev ## deploy/compose.yaml on the images of make image: kills, limits, stop and start (10 minutes; podman or docker)
	@$(BIN)/python -m pytest -m containers lakehouse_tests/containers

test-slow: setup $(VENV)/.dev ## What make test has a part of: every seed and case, long lives of a table (no server; an hour)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m 'slow and not browser and not faults and not power and not stack and not spark and not containers'

ACTIONLINT := actionlint-v1.7.12
check: setup $(VENV)/.dev ## Lint, types, floors, security, generated files, dbt parse, definitions load, bench cases
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/bandit -q -r lakehouse benchmarks -c pyproject.toml
	@$(BIN)/zizmor --quiet --offline --no-progress --min-severity medium .github
	@if test -x .stack/tools/bin/$(ACTIONLINT) || { command -v go >/dev/null && \
		GOBIN='$(CURDIR)/.stack/tools/bin' go install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT:actionlint-%=%) && \
		mv .stack/tools/bin/actionlint .stack/tools/bin/$(ACTIONLINT); }; then .stack/tools/bin/$(ACTIONLINT); \
		else echo 'The workflows are read by zizmor only: actionlint needs go, and its modules.'; fi
	@$(BIN)/python -m lakehouse sync --check
	@$(BIN)/dagster definitions validate --log-level warning
	@$(BIN)/python -m benchmarks --check

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

sync: setup ## Regenerate what derives from the specs: dbt sources, golden asset keys
	@$(BIN)/python -m lakehouse sync

.PHONY: impact
impact: setup ## What a change does to the graph, and what it breaks: [BASE=main] [HEAD=branch] [FORM=markdown]
	@$(BIN)/python -m lakehouse impact $(if $(BASE),--base "$$BASE") $(if $(HEAD),--head "$$HEAD") $(if $(FORM),"--$$FORM")

branch: setup ## A lake of one's own over this one: eval "$$(make -s branch NAME=x)"
	@$(BIN)/python -m lakehouse branch "$$NAME"

branch-drop: setup ## Remove it with all that was computed in it: NAME=x
	@$(BIN)/python -m lakehouse branch-drop "$$NAME"

lock: $(VENV)/.dev ## Resolve requirements.lock anew
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --all-extras --python-version 3.11 --no-header pyproject.toml --output-file requirements.lock

bench: setup $(VENV)/.dev ## Measure against bare scripts, with bounds [ROWS=100000000] [ONLY=full]
	@$(BIN)/python -m benchmarks $(if $(ROWS),--rows "$$ROWS") $(if $(ONLY),--only "$$ONLY")

clean: ## Remove the lake, Dagster's history and caches (keeps .venv)
	@rm -rf data dbt_project/target dbt_project/logs
