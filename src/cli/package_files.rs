//! `device-status package-files`: what a package has besides the binary, from the
//! definition of the command line. For `make package`; `--help` does not list it.

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use clap_complete::Shell;

use crate::error::Fatal;

/// Write the manual pages and the shell completions
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Directory to write to; it gets the subdirectories man and completions
    pub directory: PathBuf,
}

/// Writes the files. `command` is the definition of the command line.
///
/// # Errors
/// When the directory cannot be written to.
pub fn run(args: &Args, mut command: clap::Command) -> Result<(), Fatal> {
    let failed = |directory: &Path, error: &std::io::Error| {
        Fatal::usage(format!("cannot write to {}: {error}", directory.display()))
    };
    let directory = |name| {
        let directory = args.directory.join(name);
        match std::fs::create_dir_all(&directory) {
            Ok(()) => Ok(directory),
            Err(error) => Err(failed(&directory, &error)),
        }
    };
    let man = directory("man")?;
    clap_mangen::generate_to(command.clone(), &man).map_err(|error| failed(&man, &error))?;
    let completions = directory("completions")?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut command, "device-status", &completions)
            .map_err(|error| failed(&completions, &error))?;
    }
    let bash = completions.join("device-status.bash");
    mend(&bash).map_err(|error| failed(&bash, &error))
}

/// clap_complete 4.6 writes the hyphen of our name in two ways, and then bash completes
/// nothing after a command (issue 6421 of clap).
fn mend(bash: &Path) -> std::io::Result<()> {
    let script = std::fs::read_to_string(bash)?;
    std::fs::write(bash, script.replace("device__subcmd__status", "device__status"))
}
