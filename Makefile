# Two commands for a new user: `make demo` and `make test`. Each does all of its own set-up: it builds, and fetches
# the default model (98 MB, once) into the user's data folder. `make help` lists the rest.

CARGO ?= cargo
# One profile for demo, test and CI, so that nothing is built twice; `make install` builds an optimised release.
BIN := target/debug
MODEL := smollm2-135m-instruct
PREFIX ?= $(HOME)/.local
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help build model demo test run ci fmt lint doc test-peers test-redis test-dbus test-encoder bench-turn bench-speed bench-mess bench-tmo bench-budgets fuzz install uninstall clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## the two programs, tether and tether-cloud (fast build)
	$(CARGO) build --locked --workspace --bins

model: build ## fetch the default model, checked by sha256; does nothing if it is there
	$(BIN)/tether models pull $(MODEL)

demo: model ## a kitchen dialogue on real models, with a gateway that goes away in the middle
	$(BIN)/tether-demo

# One thread a model: tests run side by side, and candle's pool stalls when it has to share its processors.
test: model ## every test that needs nothing but this machine, on the real model too
	CANDLE_NUM_THREADS=1 $(CARGO) test --locked --workspace --all-targets
	$(CARGO) test --locked --workspace --doc

run: model ## the daemon in the foreground, on your own socket, no cloud
	$(BIN)/tether serve

ci: fmt lint doc test ## what CI runs

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

test-redis: build ## several gateways at a real Redis, killed and emptied (needs redis-server: apt install redis-server)
	@command -v redis-server >/dev/null || { echo "test-redis: redis-server is not installed; on Debian: apt install redis-server"; exit 1; }
	$(CARGO) test --locked --workspace --test shared -- --ignored --nocapture

test-dbus: build ## metered links from a NetworkManager of our own on a private bus (needs dbus-daemon: apt install dbus)
	@command -v dbus-daemon >/dev/null || { echo "test-dbus: dbus-daemon is not installed; on Debian: apt install dbus"; exit 1; }
	$(CARGO) test --locked --workspace --test metered -- --ignored --nocapture

test-encoder: build ## the sentence encoder on its real weights (pulls 91 MB, checked by sha256)
	$(BIN)/tether models pull all-minilm-l6-v2
	$(BIN)/tether models pull all-minilm-l6-v2.tokenizer
	$(CARGO) test --locked --workspace --lib sentence -- --ignored

test-peers: model ## the openai Python client and llama.cpp's server as peers (installs them into .cache)
	tests/peers/run.sh

bench-turn: model ## the daemon against its bare engine, start, cancel, dialogues, 200 streams, idle: one JSON object a line
	$(BIN)/tether-bench-turn

bench-speed: model ## our engine against llama.cpp on the same files (compiles llama.cpp once): one JSON object a line
	"$$(tests/peers/install.sh)" tests/peers/bench_speed.py $(BIN)/tether-speed-side \
		"$${TETHER_TEST_MODEL:-$${XDG_DATA_HOME:-$$HOME/.local/share}/tether/models/SmolLM2-135M-Instruct.Q4_1.gguf}" .cache/speed

bench-mess: build ## MESS+ against its targets; DATA=folder with the router data, without it rows say skipped
	$(BIN)/tether-lab mess bench $(if $(DATA),--data $(DATA))

bench-tmo: build ## TMO against its targets; DATA=folder with data/m4a1 and reference, without it rows say skipped
	$(BIN)/tether-lab tmo bench $(if $(DATA),--data $(DATA))

bench-budgets: build ## budgets, ledger and crashes against their targets; DATA=folder with data/traces, without it rows say skipped
	$(BIN)/tether-bench-budgets $(if $(DATA),--data $(DATA))

fuzz: ## one minute of mutated bytes into every decoder
	TETHER_FUZZ_SECONDS=60 $(CARGO) test --locked -p tether-protocol --test fuzz_decoders -- --nocapture

install: ## release build into PREFIX (default ~/.local), with the user service
	$(CARGO) build --locked --release --bin tether --bin tether-cloud
	PREFIX="$(PREFIX)" packaging/install.sh

uninstall: ## remove what `make install` put there; models and dialogues stay
	PREFIX="$(PREFIX)" packaging/uninstall.sh

clean: ## remove build output (not the models)
	$(CARGO) clean
