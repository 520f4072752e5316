//! `cargo xtask validate`: what others test plugins with.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::bundle::{self, Bundles};

/// Check the bundles in target/bundled with the validators that others wrote for plugins
///
/// The validators must be installed. Run `cargo xtask bundle graft --release` first.
///
/// Example: cargo xtask validate clap-validator
#[derive(Args)]
pub struct Validate {
    /// Validators to run
    #[arg(required = true)]
    validators: Vec<Validator>,
}

/// A validator, called as its program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Validator {
    /// For CLAP: <https://github.com/free-audio/clap-validator>
    ClapValidator,
    /// For VST3: <https://github.com/Tracktion/pluginval>
    Pluginval,
}

impl Validator {
    /// The program and its arguments.
    fn call(self, bundles: &Bundles) -> (&'static str, Vec<&'static str>, &Path) {
        match self {
            Self::ClapValidator => (
                "clap-validator",
                vec!["validate", "--only-failed"],
                &bundles.clap,
            ),
            // The window has tests of its own, which need no validator.
            Self::Pluginval => (
                "pluginval",
                vec!["--strictness-level", "10", "--skip-gui-tests", "--validate"],
                &bundles.vst3,
            ),
        }
    }
}

impl Validate {
    /// Runs the validators and stops at the first that fails.
    pub fn run(self) -> Result<()> {
        let bundles = bundle::bundles()?;
        for validator in self.validators {
            let (program, arguments, bundle) = validator.call(&bundles);
            ensure!(
                bundle.exists(),
                "expected the bundle {}, found nothing; cargo xtask bundle graft --release builds it",
                bundle.display()
            );
            let status = Command::new(program)
                .args(arguments)
                .arg(bundle)
                .status()
                .with_context(|| format!("cannot start {program}: is it installed?"))?;
            ensure!(
                status.success(),
                "{program} found faults in {}",
                bundle.display()
            );
        }
        Ok(())
    }
}
