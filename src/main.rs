//! The `nervewire` binary.

use std::process::ExitCode;

/// Small allocations dominate: mimalloc wastes the least on them (`docs/benchmarks.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    nervewire::cli::main(std::env::args_os(), nervewire::server::run)
}
