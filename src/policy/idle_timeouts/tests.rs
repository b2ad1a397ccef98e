//! The servers against a list of them.

use std::collections::VecDeque;

use allocator_api2::alloc::Global;
use proptest::prelude::*;

use super::{IdleTimeout, IdleTimeouts, Server, Verdict};
use crate::guarded::Guarded;

const MARGIN: u64 = 1000;

fn servers(capacity: u32) -> IdleTimeouts<Global> {
    IdleTimeouts::new_in(capacity, 8, Global).unwrap()
}

fn teach(servers: &mut IdleTimeouts<Global>, address: &[u8], age: u32) {
    (0..3).for_each(|i| servers.closed(address, age, i * 1000));
}

fn known(servers: &IdleTimeouts<Global>) -> Vec<(&[u8], u32)> {
    servers.iter().collect()
}

#[test]
fn each_server_has_its_own() {
    let mut servers = servers(4);
    teach(&mut servers, b"a", 5000);
    teach(&mut servers, b"b", 9000);
    servers.closed(b"c", 3000, 9000);
    assert_eq!(known(&servers), [(&b"a"[..], 5000), (b"b", 9000)]);

    let check = |servers: &mut IdleTimeouts<_>, address: &[u8], age| {
        servers.check(address, (age, || None), (100_000, MARGIN))
    };
    assert_eq!(check(&mut servers, b"a", 4000), Verdict::Usable);
    assert_eq!(check(&mut servers, b"a", 4001), Verdict::TooOld(Some(5000)));
    assert_eq!(check(&mut servers, b"a", 4001), Verdict::TooOld(None));
    assert_eq!(check(&mut servers, b"b", 4001), Verdict::Usable);
    assert_eq!(check(&mut servers, b"b", 8001), Verdict::TooOld(Some(9000)));
    assert_eq!(check(&mut servers, b"c", 8001), Verdict::Usable);
    assert_eq!(check(&mut servers, b"d", 8001), Verdict::Usable);
    // It lives too long.
    assert_eq!(check(&mut servers, b"a", 7501), Verdict::Usable);
    assert_eq!(known(&servers), [(&b"b"[..], 9000)]);
}

#[test]
fn the_oldest_shows_that_a_timeout_is_gone() {
    let mut servers = servers(1);
    teach(&mut servers, b"a", 5000);
    let mut check = |age, oldest| servers.check(b"a", (age, || oldest), (100_000, MARGIN));
    assert_eq!(check(4001, Some(7500)), Verdict::TooOld(Some(5000)));
    assert_eq!(check(4001, None), Verdict::TooOld(None));
    assert_eq!(check(4001, Some(7501)), Verdict::Usable);
    assert_eq!(known(&servers), []);

    // One that can be used is reason enough not to look at others.
    teach(&mut servers, b"a", 5000);
    let asked = servers.check(b"a", (4000, || panic!("asked")), (100_000, MARGIN));
    assert_eq!(asked, Verdict::Usable);
    assert_eq!(known(&servers).len(), 1);
}

#[test]
fn a_check_is_no_reason_to_remember_a_server() {
    let mut servers = servers(1);
    teach(&mut servers, b"a", 5000);
    servers.check(b"b", (5000, || None), (0, MARGIN));
    assert_eq!(known(&servers), [(&b"a"[..], 5000)]);
}

#[test]
fn an_address_that_is_too_long_is_ignored() {
    let mut servers = servers(2);
    teach(&mut servers, b"12345678", 5000);
    teach(&mut servers, b"123456789", 5000);
    assert_eq!(known(&servers), [(&b"12345678"[..], 5000)]);
}

#[test]
fn without_memory_nothing_is_learned() {
    let mut servers = servers(0);
    teach(&mut servers, b"a", 5000);
    assert_eq!(known(&servers), []);
}

#[test]
fn a_process_that_dies_leaves_nothing_behind() {
    let mut servers = Guarded::new(servers(2));
    servers.run(|servers| teach(servers, b"a", 5000));
    servers.die(|servers| assert!(servers.insert(b"b").is_some()));
    servers.run(|servers| {
        assert_eq!(known(servers), []);
        for (i, address) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
            teach(servers, address, 5000);
            // The one that was used last stays.
            servers.check(b"a", (1000, || None), (0, MARGIN));
            assert_eq!(known(servers).len(), (i + 1).min(2));
            assert!(known(servers).contains(&(&b"a"[..], 5000)));
        }
    });
}

#[test]
fn no_more_servers_are_known_than_there_is_memory_for() {
    let server = size_of::<Server>() + size_of::<u32>() + 8;
    assert_eq!(IdleTimeouts::<Global>::memory(100, 8), 100 * server);
    let mut servers = servers(100);
    for i in 0_u16..1000 {
        teach(&mut servers, &i.to_ne_bytes(), 5000);
    }
    assert_eq!((servers.servers.len(), servers.servers.capacity()), (100, 100));
    assert_eq!(known(&servers).len(), 100);
}

proptest! {
    /// Against a list, in which the server that was used last comes first.
    #[test]
    fn the_least_recently_used_one_makes_room(
        capacity in 1_u32..6,
        operations in proptest::collection::vec((any::<bool>(), 0_u8..10, 0_usize..10), 0..300),
    ) {
        let mut servers = servers(capacity);
        let mut naive: VecDeque<(Vec<u8>, IdleTimeout)> = VecDeque::new();
        for (now, (is_close, name, length)) in (0..).step_by(500).zip(operations) {
            let address = vec![name; length];
            let age = 5000 + u32::from(name);
            let found = naive.iter().position(|(other, _)| *other == address);
            let server = found.and_then(|i| naive.remove(i));
            if is_close {
                servers.closed(&address, age, now);
                if length <= 8 {
                    let (_, mut timeout) = server.unwrap_or_default();
                    timeout.closed(age, now);
                    naive.push_front((address, timeout));
                    naive.truncate(capacity as usize);
                }
            } else {
                let verdict = servers.check(&address, (age, || None), (now, MARGIN));
                let mut expected = Verdict::Usable;
                    if let Some((_, mut timeout)) = server {
                        timeout.open(age, now);
                        if timeout.limit(MARGIN).is_some_and(|limit| age > limit) {
                            expected = Verdict::TooOld(timeout.first_use());
                        }
                        naive.push_front((address, timeout));
                    }
                    prop_assert_eq!(verdict, expected);
            }
            let mut shown: Vec<_> = servers.iter().map(|(a, t)| (a.to_vec(), t)).collect();
            let mut expected: Vec<_> = naive
                .iter()
                .filter_map(|(address, timeout)| Some((address.clone(), timeout.get()?)))
                .collect();
            shown.sort();
            expected.sort();
            prop_assert_eq!(shown, expected);
        }
    }
}
