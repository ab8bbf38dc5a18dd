//! Network namespaces, a link emulator and process control for testing `vpn` between real kernels.
