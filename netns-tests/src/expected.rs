//! Scenarios that fail until something is built, and what they wait for.
//!
//! Each is written as it will pass one day, and runs with all others. It must fail, and for the reason that is given here: one
//! that passes fails the run until it is taken off the list, and so does one that fails in another way.

/// A scenario that must fail for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedFailure {
    /// The scenario's name, which is its test's.
    pub scenario: &'static str,
    /// What its failure says, in part.
    pub failure: &'static str,
    /// The title of the issue that makes it pass.
    pub issue: &'static str,
}

/// The entry of `scenario`, if it must fail.
#[must_use]
pub fn expected_failure(scenario: &str) -> Option<ExpectedFailure> {
    LIST.iter().find(|entry| entry.scenario == scenario).copied()
}

const fn entry(scenario: &'static str, failure: &'static str, issue: &'static str) -> ExpectedFailure {
    ExpectedFailure { scenario, failure, issue }
}

const LIST: &[ExpectedFailure] = &[
    entry(
        "a_preface_is_the_first_thing_on_the_wire",
        "carrier.preface: this value is not built yet",
        CARRIER,
    ),
    entry("two_carriers_carry_at_once", "carrier.carriers: this value is not built yet", CARRIER),
];

const CARRIER: &str =
    "The carrier, complete: every ISP mode, migration nobody notices, a listener that cannot be flooded";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_names_a_scenario_that_exists_and_a_reason() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
        let sources: String = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        for entry in LIST {
            let test = format!("fn {}()", entry.scenario);
            assert_eq!(sources.matches(&test).count(), 1, "{entry:?}");
            assert!(!entry.failure.is_empty() && !entry.issue.is_empty(), "{entry:?}");
        }
    }
}
