//! The hashes of identities, with random seeds.

use core::hash::{BuildHasher, Hasher as _};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use siphasher::sip::SipHasher13;

use super::identity::Identity;

/// Random bytes that make the hashes of one pool differ from those of all others.
pub type Seed = [u8; 24];

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
/// Keys come from clients. They are hashed by SipHash, with a seed that clients do not know, so
/// nobody can make many keys that share a bucket; so are attributes. The rest comes from the
/// configuration, and a faster hash of it is added.
pub struct Hasher {
    keys: SipHasher13,
    servers: SeedableRandomState,
}

impl Hasher {
    /// A hasher with this seed.
    pub fn new(seed: &Seed) -> Self {
        let (keys, servers) = seed.split_at(16);
        let keys = <&[u8; 16]>::try_from(keys).unwrap_or(&[0; 16]);
        let servers = <[u8; 8]>::try_from(servers).unwrap_or_default();
        Hasher {
            keys: SipHasher13::new_with_key(keys),
            servers: SeedableRandomState::with_seed(
                u64::from_ne_bytes(servers),
                SharedSeed::global_fixed(),
            ),
        }
    }

    /// The hashes of an identity.
    pub fn hash(&self, identity: &Identity<'_>) -> Hashes {
        let Identity { key, address, attributes, protocol } = *identity;
        let key = if key.is_empty() { 0 } else { self.keys.hash(key) };

        let mut hasher = self.servers.build_hasher();
        hasher.write_u64(key);
        hasher.write_u64(protocol.location);
        hasher.write_u64(protocol.number());
        hasher.write(address);
        if !attributes.is_empty() {
            hasher.write_u64(self.keys.hash(attributes));
        }

        // The lower half of a good hash is a good hash, too.
        Hashes { slice: key as u32, peer: hasher.finish() as u32 }
    }
}
