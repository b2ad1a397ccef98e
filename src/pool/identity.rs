//! The identity under which connections are saved and looked up.

/// The protocol of a connection: connections that differ in it must not be mixed. The pool only
/// compares the numbers.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Protocol {
    /// The number of the nginx module that creates requests for this connection.
    pub module: u16,
    /// The number of its handler that creates them.
    pub handler: u32,
    /// The number of the location, if locations do not share connections; otherwise 0.
    pub location: u64,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// The identity under which a connection is saved and looked up.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The slice key.
    pub key: &'a [u8],
    /// The server address, compared as bytes.
    pub address: &'a [u8],
    /// The protocol.
    pub protocol: Protocol,
}
