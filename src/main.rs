//! The `vpn` program; everything is in the library.
fn main() {}
