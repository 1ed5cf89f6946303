//! Parse, build, run; error → exit code.

use std::io::Write as _;

use tikv_jemallocator::Jemalloc;

/// A record's memory is taken by a thread of librdkafka and given back by a
/// stream thread. The C library's allocator makes the two wait for each other,
/// which costs as much as all that is done with a heartbeat; so this one also
/// stands in for the `malloc` that librdkafka calls (docs/performance.md).
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
    // Threads of librdkafka that wait for a silent broker outlive this one. What
    // a usual exit takes down first, such as OpenSSL's state, they still use.
    signal_hook::low_level::exit(i32::from(exit_code));
}
