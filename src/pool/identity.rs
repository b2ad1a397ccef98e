//! What connections are saved and looked up under.

/// What a connection speaks, as far as connections that differ in it must not be mixed. The pool
/// only compares the numbers.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Protocol {
    /// Tells the handler that makes requests for this connection.
    pub handler: u16,
    /// Tells the location, if connections are not shared among locations, and else is 0.
    pub location: usize,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// What a connection is saved and looked up under.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The slice key.
    pub key: &'a [u8],
    /// The server address, compared as bytes.
    pub address: &'a [u8],
    /// The protocol.
    pub protocol: Protocol,
}
