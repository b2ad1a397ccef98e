//! Fuzzing of the module's pure code. Each target compares it with the same rules written down as
//! simply as possible, and `ci/fuzz` runs them all.
//!
//! The sources are the module's own, without the border to nginx, so that nothing else is built
//! and followed by the fuzzer.

/// The module's pure files.
#[path = "../../src"]
pub mod module {
    pub mod hints;
    pub mod pool;

    /// Of the directives, the grammar.
    pub mod conf {
        pub mod params;
    }
}

pub mod hints;
pub mod params;
pub mod pool;
