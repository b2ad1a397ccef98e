//! The hashes of identities, with random seeds.

use core::hash::{BuildHasher, Hasher as _};

use super::{Identity, Protocol};

/// The hashes of an identity.
#[derive(Clone, Copy, Debug)]
pub struct Hashes {
    /// Of the key.
    pub slice: u32,
    /// Of everything.
    pub peer: u32,
}

/// Hashes identities.
///
/// Keys come from clients. They are hashed by the standard library's SipHash, with a seed that
/// clients do not know, so nobody can make many keys that share a bucket. The rest comes from the
/// configuration, and a faster hash of it is added.
pub struct Hasher {
    keys: std::hash::RandomState,
    servers: foldhash::fast::RandomState,
}

impl Hasher {
    /// A hasher with seeds of its own.
    pub fn new() -> Self {
        Hasher {
            keys: std::hash::RandomState::new(),
            servers: foldhash::fast::RandomState::default(),
        }
    }

    /// The hashes of an identity.
    pub fn hash(&self, identity: &Identity<'_>) -> Hashes {
        let Identity { key, address, protocol: Protocol { handler, location, tls } } = *identity;
        let key = if key.is_empty() { 0 } else { self.hash_key(key) };

        let mut hasher = self.servers.build_hasher();
        hasher.write_u64(key);
        hasher.write_usize(handler);
        hasher.write_usize(location ^ usize::from(tls));
        hasher.write(address);

        // The lower half of a good hash is one, too.
        Hashes { slice: key as u32, peer: hasher.finish() as u32 }
    }

    fn hash_key(&self, key: &[u8]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}
