#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vpn_fuzz::run("probe", bytes));
