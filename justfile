# Daily commands, for just (https://just.systems). Without just, copy the command of a recipe.

# List the recipes.
default:
    @just --list

# Compile everything, tests and examples included.
build:
    cargo build --workspace --all-targets --locked

# All tests: units, documentation, the suite on every engine with its crash sweeps.
test:
    cargo test --workspace --locked

# The suite on one engine: just suite kv-log; more arguments filter cases: just suite kv-log crash::
suite package *cases:
    cargo test -p {{package}} --locked --test conformance -- {{cases}}

# The suite on both engines with ten times the effort; takes a night.
night:
    KV_TESTS_EFFORT=10 KV_TESTS_TIMEOUT_S=3000 cargo test --locked -p kv-log -p kv-naive --test conformance
    KV_TESTS_EFFORT=10 KV_TESTS_TIMEOUT_S=3000 cargo test --locked -p kv-log --test conformance_cold

# Which case finds which deliberate defect.
mutants:
    cargo test -p kv-tests --locked --test mutants -- --nocapture

# The engine outside the workspace, through the suite.
tiny:
    cargo test --manifest-path examples/tiny-engine/Cargo.toml

# Format the code.
fmt:
    cargo fmt --all

# Everything that CI judges except tests: format, lints, documentation, width of prose.
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
    .ci/prose-width

# All of CI.
ci:
    .ci/run

# Models of lock-free code: loom for kv-core, shuttle for kv-log's index.
models:
    RUSTFLAGS="--cfg loom" cargo test -p kv-core --release --locked --target-dir target/models --lib model
    RUSTFLAGS="--cfg shuttle" cargo test -p kv-log --release --locked --target-dir target/models --lib model

# AddressSanitizer on kv-log's tests and the whole suite.
asan:
    ASAN_OPTIONS=allocator_may_return_null=1 RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
      cargo test -p kv-log --locked --lib --test engine --test recovery --test cold --test visitors --test full_disk --test close \
      --test compact --test conformance --test conformance_cold --target x86_64-unknown-linux-gnu

# ThreadSanitizer on kv-log's threads; docs/testing.md explains its reports.
tsan:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" TSAN_OPTIONS=exitcode=0 \
      CARGO_TARGET_DIR=target/tsan cargo test -p kv-log --locked --test cold --test engine --target x86_64-unknown-linux-gnu \
      -- writers_and_readers memory_stays concurrent_writers --test-threads 1

# Fuzz the log format; needs a nightly toolchain and cargo-fuzz. Targets: scan, round_trip.
fuzz target="scan":
    cd kv-wal-format && cargo +nightly fuzz run {{target}}

# Both engines measured against each other; over a minute.
[positional-arguments]
compare *options:
    cargo run --release --locked -p kv-bench -- compare "$@"

# kv-log against its targets and the peers; about an hour, or some rows: just engine --only "fill, 500 B"
[positional-arguments]
engine *options:
    cargo run --release --locked -p kv-bench --features peers -- engine "$@"

# Past states, restores, backups and repairs of kv-log against their targets; some minutes.
[positional-arguments]
moments *options:
    cargo run --release --locked -p kv-bench -- moments "$@"

# The results of the last `just engine` and `just moments` in the document.
publish:
    cargo run --release --locked -p kv-bench --features peers -- publish docs/performance.md

# Licences, sources and advisories of the dependencies; needs cargo-deny and the network.
deny:
    cargo deny --locked check
