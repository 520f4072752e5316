//! How the programs of the command line end.

use std::process::ExitCode;

use anyhow::Result;

/// Prints an error with its causes, and returns the exit status of the program.
pub fn code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
