# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
FORMAT ?= text
OUTPUTS ?= outputs
GRID ?= demo
PAPER_TABLES := $(sort $(notdir $(basename $(wildcard conf/paper/*.yaml))))

.DEFAULT_GOAL := help
.PHONY: help install demo report wandb-report test check check-recipes bench tables $(PAPER_TABLES)

help: ## what there is
	@grep -hE '^[a-z$$()A-Z_-]+:.*## ' $(MAKEFILE_LIST) | sed 's/$$(PAPER_TABLES)/belle-table2/' | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo "Tables of papers:"
	@echo "$(PAPER_TABLES)" | fold -s -w 100 | sed 's/^/  /'

$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $${TORCH:-torch==2.13.0}
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

install: $(BIN)/.installed ## make .venv and install into it; TORCH=... picks another torch

demo: $(BIN)/.installed ## a small grid with known truths, offline: five mixes, two seeds, one table
	@$(BIN)/python train.py sweeps=demo paths.outputs=$(OUTPUTS)
	@echo
	@echo "Try next:"
	@echo "  .venv/bin/python train.py -m data=toy_vi,toy_vi_noisy,toy_zh evaluation=toy_vi seed=0,1"
	@echo "  .venv/bin/python train.py -m data=zh_alpaca4,en_alpaca paths.data=FOLDER   your own data, one folder per source"
	@echo "  .venv/bin/python train.py --help"

wandb-report: $(BIN)/.installed ## a Weights & Biases report on GRID=demo; without a server, what it would be
	@$(BIN)/python -m babeltune.dashboards $(GRID) --outputs $(OUTPUTS)

report: $(BIN)/.installed ## a grid in one HTML page, outputs/report.html; GRID=demo
	@$(BIN)/babeltune report $(GRID) --outputs $(OUTPUTS) --output $(OUTPUTS)/report.html

test: $(BIN)/.installed ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

check-recipes: $(BIN)/.installed ## every recipe of the papers for three steps of a small model, offline; five minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.recipes

bench: $(BIN)/.installed ## speed and memory beside six other frameworks; DATA=FOLDER TOKENIZER=FOLDER REPEATS=3
	$(BIN)/python bench/side_by_side.py --data "$(DATA)" --tokenizer "$(TOKENIZER)" --repeats $(or $(REPEATS),3)
	$(BIN)/python bench/side_by_side.py --data "$(DATA)" --tokenizer "$(TOKENIZER)" --repeats $(or $(REPEATS),3) --vocabulary 79458 --steps 4 --only babeltune,bare,hf,trl --name side_by_side_79458
	$(BIN)/python bench/preparing.py --data "$(DATA)" --tokenizer "$(TOKENIZER)" --repeats $(or $(REPEATS),3)
	$(BIN)/python bench/grid.py --data "$(DATA)" --tokenizer "$(TOKENIZER)"
	$(BIN)/python bench/step.py

check: $(BIN)/.installed ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(PAPER_TABLES): $(BIN)/.installed ## a table of a paper: paper | ours; FORMAT=text|md|latex|csv|html
	@$(BIN)/babeltune paper $@ --format $(FORMAT) --outputs $(OUTPUTS)

tables: $(BIN)/.installed ## all tables of papers, here and in outputs/tables.md
	@$(BIN)/babeltune paper all --format $(FORMAT) --outputs $(OUTPUTS)
	@$(BIN)/babeltune paper all --format md --outputs $(OUTPUTS) --to $(OUTPUTS)/tables.md
