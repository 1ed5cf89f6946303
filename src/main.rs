//! Parse, build, run; error → exit code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// A record's memory is taken by a thread of librdkafka and given back by a
/// stream thread. The C library's allocator makes the two wait for each other,
/// which costs as much as all that is done with a heartbeat; so this one also
/// stands in for the `malloc` that librdkafka calls (docs/performance.md).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match device_status::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            eprintln!("error: {fatal}");
            ExitCode::from(fatal.kind.exit_code())
        }
    }
}
