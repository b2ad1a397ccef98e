//! The attributes of a connection: what it was made with, where that can differ by request. A
//! request only uses a connection that has the attributes which it would give to a new one.

#![forbid(unsafe_code)]

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec;

use crate::pool::Length;

/// The length of a local address, in bytes: at most that of an IPv6 address.
const ADDRESS: usize = size_of::<libc::sockaddr_in6>();

/// The longest name or file from a variable for which there is room, in bytes: as long as the name
/// of a host or of a file can be.
const TEXT: usize = 255;

/// The number of the client connection in an attribute.
pub type ClientNumber = [u8; 12];

/// The kind and the length before each attribute, in bytes.
const HEAD: usize = 1 + size_of::<Length>();

/// A kind of attributes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The local address of `proxy_bind`.
    Local = 1,
    /// The same, with `transparent`.
    Transparent,
    /// The name of `proxy_ssl_name`.
    Name,
    /// The file of `proxy_ssl_certificate`.
    Certificate,
    /// The file of `proxy_ssl_certificate_key`.
    CertificateKey,
    /// The client connection that the connection is bound to, with `ntlm`.
    Client,
}

/// An attribute, and its value.
pub type Attribute<'a> = (Kind, &'a [u8]);

/// The attributes one after the other, each with its kind and length, so that no two lists are
/// equal as bytes; `None` if they are longer than `longest`, or there is no memory.
pub fn encode<'a, A: Allocator>(
    attributes: impl Iterator<Item = Attribute<'a>> + Clone,
    longest: Length,
    memory: A,
) -> Option<Vec<u8, A>> {
    let lengths = attributes.clone().map(|(_, value)| HEAD.saturating_add(value.len()));
    let length = lengths.fold(0, usize::saturating_add);
    if length > usize::from(longest) {
        return None;
    }
    let mut bytes = Vec::new_in(memory);
    bytes.try_reserve_exact(length).ok()?;
    for (kind, value) in attributes {
        bytes.push(kind as u8);
        bytes.extend_from_slice(&(value.len() as Length).to_ne_bytes());
        bytes.extend_from_slice(value);
    }
    Some(bytes)
}

/// In what the connections to an upstream can differ, by the locations that pass requests to it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Variety {
    /// The number of the TLS settings of a location; 0 if none uses TLS.
    pub tls: u16,
    /// Whether another location has others.
    pub several: bool,
    /// Whether there are local addresses.
    pub local: bool,
    /// Whether the name in TLS has variables.
    pub name: bool,
    /// Whether the client certificate or its key has variables.
    pub certificate: bool,
}

impl Variety {
    /// Adds those of further locations.
    pub fn add(&mut self, other: Variety) {
        let is_other = self.tls != 0 && other.tls != 0 && self.tls != other.tls;
        self.several |= other.several || is_other;
        self.tls = if self.tls == 0 { other.tls } else { self.tls };
        self.local |= other.local;
        self.name |= other.name;
        self.certificate |= other.certificate;
    }

    /// Whether the connections differ in anything.
    pub fn is_any(self) -> bool {
        self.several || self.local || self.name || self.certificate
    }

    /// The length of the longest attributes for which there is room, in bytes. `ntlm`: whether
    /// connections can be bound to a client connection.
    pub fn longest(self, ntlm: bool) -> Length {
        let values = [
            (self.local, ADDRESS),
            (self.name, TEXT),
            (self.certificate, TEXT),
            (self.certificate, TEXT),
            (ntlm, size_of::<ClientNumber>()),
        ];
        let lengths = values.map(|(has, length)| if has { HEAD.saturating_add(length) } else { 0 });
        lengths.iter().sum::<usize>() as Length
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::alloc::Global;

    use super::*;

    fn encoded(attributes: &[Attribute<'_>]) -> Vec<u8, Global> {
        encode(attributes.iter().copied(), Length::MAX, Global).unwrap()
    }

    #[test]
    fn no_two_lists_are_equal() {
        let lists: &[&[Attribute<'_>]] = &[
            &[],
            &[(Kind::Local, b"a")],
            &[(Kind::Transparent, b"a")],
            &[(Kind::Name, b"")],
            &[(Kind::Name, b"a")],
            &[(Kind::Name, b"ab")],
            &[(Kind::Certificate, b"a"), (Kind::CertificateKey, b"b")],
            &[(Kind::Certificate, b"ab"), (Kind::CertificateKey, b"")],
            &[(Kind::Certificate, b"a\x05\x01\x00b")],
            &[(Kind::Local, b"a"), (Kind::Name, b"b")],
        ];
        for (i, a) in lists.iter().enumerate() {
            for (j, b) in lists.iter().enumerate() {
                assert_eq!(encoded(a) == encoded(b), i == j, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn there_is_room_for_the_longest_ones() {
        let text = [b'a'; TEXT];
        let all = [
            (Kind::Transparent, &[1; ADDRESS][..]),
            (Kind::Name, &text),
            (Kind::Certificate, &text),
            (Kind::CertificateKey, &text),
            (Kind::Client, &[1; size_of::<ClientNumber>()]),
        ];
        let variety =
            Variety { tls: 1, several: false, local: true, name: true, certificate: true };
        let longest = variety.longest(true);
        let encode = |longest| encode(all.into_iter(), longest, Global).map(|all| all.len());
        assert_eq!(encode(longest), Some(longest.into()));
        assert_eq!(encode(longest - 1), None);
        assert_eq!(Variety { tls: 1, several: true, ..Variety::default() }.longest(false), 0);
    }

    #[test]
    fn varieties_of_locations_add_up() {
        let of = |tls| Variety { tls, ..Variety::default() };
        let sum = |all: &[Variety]| {
            let mut sum = Variety::default();
            all.iter().for_each(|&one| sum.add(one));
            sum
        };
        assert!(!sum(&[]).is_any());
        assert_eq!(sum(&[of(0), of(3), of(0), of(3)]), of(3));
        let several = Variety { several: true, ..of(3) };
        assert_eq!(sum(&[of(0), of(3), of(4), of(3)]), several);
        assert_eq!(sum(&[of(3), several]), several);
        assert_eq!(sum(&[several, of(3)]), several);
        for one in [
            several,
            Variety { local: true, ..of(0) },
            Variety { name: true, ..of(1) },
            Variety { certificate: true, ..of(1) },
        ] {
            assert!(one.is_any());
            assert_eq!((sum(&[one]), sum(&[of(0), one]), sum(&[one, of(0)])), (one, one, one));
        }
    }
}
