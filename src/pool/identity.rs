//! The identity under which connections are saved and looked up.

/// The protocol of a connection: connections that differ in it must not be mixed. The pool only
/// compares the numbers.
#[derive(Clone, Copy, Debug, Default, Eq)]
#[repr(C)]
pub struct Protocol {
    /// The number of the location, if locations do not share connections; otherwise 0.
    pub location: u64,
    /// The number of the handler that creates requests for this connection, in its module.
    pub handler: u32,
    /// The number of the nginx module that creates them.
    pub module: u16,
    /// The number of the TLS settings with which the connection was made; 0 without TLS.
    pub tls: u16,
}

impl Protocol {
    /// All but the location, in one number.
    #[inline(always)]
    pub fn number(&self) -> u64 {
        u64::from(self.handler) | u64::from(self.module) << 32 | u64::from(self.tls) << 48
    }
}

/// Two comparisons instead of four.
impl PartialEq for Protocol {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number() && self.location == other.location
    }
}

/// The identity under which a connection is saved and looked up.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The slice key.
    pub key: &'a [u8],
    /// The server address, compared as bytes.
    pub address: &'a [u8],
    /// What else the connection was made with, where that can differ by request, compared as bytes.
    /// Mostly empty.
    pub attributes: &'a [u8],
    /// The protocol.
    pub protocol: Protocol,
}
