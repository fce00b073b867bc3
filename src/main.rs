//! The `nervewire` binary.

use std::process::ExitCode;

use nervewire::allocator::{self, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    allocator::without_huge_pages();
    nervewire::cli::main(std::env::args_os(), nervewire::server::run)
}
