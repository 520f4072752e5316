//! Command-line arguments that several programs share.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use model_runtime::LatencyMode;

/// Each mode with its name and help text on the command line.
const LATENCIES: [(LatencyMode, &str, &str); 3] = [
    (LatencyMode::Live, "live", "Lowest latency"),
    (LatencyMode::Default, "default", "Compromise"),
    (LatencyMode::Full, "full", "Full look-ahead, best sound"),
];

/// Parses a [`LatencyMode`].
pub fn latency() -> impl TypedValueParser<Value = LatencyMode> {
    let values = LATENCIES.map(|(_, name, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(values).map(|found| {
        let known = LATENCIES.into_iter().find(|&(_, name, _)| name == found);
        known.expect("clap lets no other name through").0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Command};

    #[test]
    fn all_modes_have_the_names_that_models_files_give_them() {
        for mode in LatencyMode::ALL {
            let name = serde_json::to_value(mode).unwrap();
            let command = Command::new("test").arg(Arg::new("latency").value_parser(latency()));
            let found = command.get_matches_from(["test", name.as_str().unwrap()]);
            assert_eq!(found.get_one("latency"), Some(&mode));
        }
        let command = Command::new("test").arg(Arg::new("latency").value_parser(latency()));
        assert!(command.try_get_matches_from(["test", "none"]).is_err());
    }
}
