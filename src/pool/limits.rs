//! The limits of a pool.

use super::strings::Length;

/// The limits of a pool as a whole; memory is allocated for them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most idle connections.
    pub connections: u32,
    /// Longest server address, in bytes.
    pub address_length: Length,
    /// Longest attributes, in bytes.
    pub attributes_length: Length,
    /// `None`: one slice holds everything, and keys and their limits are ignored.
    pub slices: Option<SliceLimits>,
}

/// The limits of slices.
#[derive(Clone, Copy, Debug)]
pub struct SliceLimits {
    /// Most slices that hold idle connections at once.
    pub slices: u32,
    /// Longest slice key, in bytes.
    pub key_length: Length,
}
