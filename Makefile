# Each target is one line; scripts/ does the work. Only make, Python 3.11 or newer and a network are needed to start.
.PHONY: help install demo test test-compiled test-node test-compose chaos soak fuzz bench cost lint clean
help: ; @echo "make demo [ONCE=1] | test | test-compiled | test-node | test-compose | chaos | soak [SOAK_SECONDS=600] [SOAK_SEED=N] | fuzz [FUZZ_SECONDS=60] | bench [QUICK=1] | cost | lint | install | clean"
install: ; @scripts/install
demo: install ; @scripts/sdk-envs mcp2 && exec .venv/bin/python scripts/demo.py $(if $(ONCE),--once)
test: install ; @scripts/test $(ARGS)
test-compiled: install ; @scripts/test-compiled $(ARGS)
test-node: install ; @scripts/test-node $(ARGS)
test-compose: install ; @scripts/test-compose $(ARGS)
chaos: install ; @scripts/sdk-envs && RELAY_CHAOS=1 .venv/bin/python -m pytest -m chaos --timeout 3600 $(ARGS)
soak: install ; @scripts/soak $(or $(SOAK_SECONDS),600) $(SOAK_SEED)
fuzz: ; @scripts/fuzz $(or $(FUZZ_SECONDS),60)
bench: ; @scripts/environment .venvs/bench -e '.[server,bench]' && exec .venvs/bench/bin/python -m bench $(if $(QUICK),--quick) $(ARGS)
cost: install ; @.venv/bin/python -m bench.cost $(ARGS)
lint: install ; @scripts/lint
clean: ; @rm -rf .venv .venvs .fuzz .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
