//! Parse, build, run; error → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match device_status::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            eprintln!("error: {fatal}");
            ExitCode::from(fatal.kind.exit_code())
        }
    }
}
