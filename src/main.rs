//! Runs the command line and turns an error into an exit code.

use std::io::Write as _;

use tikv_jemallocator::Jemalloc;

/// A thread of librdkafka allocates a record's memory, and a stream thread frees it. With
/// the C library's allocator the two wait for each other, which costs as much as the whole
/// processing of a heartbeat. So jemalloc also replaces the `malloc` of librdkafka
/// (docs/performance.md).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() {
    let exit_code = match device_status::cli::main() {
        Ok(()) => 0,
        Err(fatal) => {
            device_status::cli::say_error(&fatal);
            fatal.kind.exit_code()
        }
    };
    let _ = std::io::stdout().flush();
    // Threads of librdkafka may still wait for a broker that does not answer. They use
    // state that a normal exit destroys first, for example OpenSSL's.
    signal_hook::low_level::exit(i32::from(exit_code));
}
