//! TODO head.
