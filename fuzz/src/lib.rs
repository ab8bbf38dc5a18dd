//! The targets of `tests/fuzz`, for libFuzzer; see `scripts/fuzz`.

#[expect(dead_code, reason = "only the tests make the corpus")]
#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

/// Runs the target `name` on one input.
pub fn run(name: &str, bytes: &[u8]) {
    (targets::target(name).run)(bytes);
}
