//! The pool's promises, one by one.

use std::collections::HashSet;

use self::idle::*;
use super::*;

mod idle;
mod model;

#[test]
fn a_connection_is_reused_once() {
    let mut pool = pool(4, 4);
    keep(&mut pool, &id("a", "1"), 7);
    assert_eq!(take(&mut pool, &id("a", "1")), Some(7));
    assert_eq!(take(&mut pool, &id("a", "1")), None);
}

#[test]
fn the_most_recently_saved_comes_first() {
    let mut pool = pool(4, 4);
    for value in 1..=3 {
        keep(&mut pool, &id("a", "1"), value);
    }
    let taken: Vec<_> = (0..3).filter_map(|_| take(&mut pool, &id("a", "1"))).collect();
    assert_eq!(taken, [3, 2, 1]);
}

#[test]
fn the_oldest_of_an_identity_is_the_one_saved_first() {
    let mut pool = pool(8, 8).pool;
    let mut save = |identity| match pool.put(|| identity, &mut Lookup::default(), NO_LIMIT) {
        Put::Kept(slot) => slot,
        other => panic!("{other:?}"),
    };
    let slots =
        [id("a", "1"), id("a", "2"), id("b", "1"), id("a", "1"), id("a", "1")].map(&mut save);
    for (slot, oldest) in slots.into_iter().zip([0, 1, 2, 0, 0]) {
        assert_eq!(pool.oldest(slot), Some(slots[oldest]));
    }
    pool.take(slots[0]);
    assert_eq!(pool.oldest(slots[4]), Some(slots[3]));
}

#[test]
fn another_identity_gets_nothing() {
    let mut pool = pool(4, 4);
    let saved = id("a", "1");
    keep(&mut pool, &saved, 7);

    let other = |protocol| Identity { protocol, ..saved };
    let with = |address, attributes| Identity { attributes, ..id("a", address) };
    for identity in [
        id("b", "1"),
        id("", "1"),
        id("a", "2"),
        id("a1", ""),
        id("", "a1"),
        other(Protocol { module: 2, ..HTTP }),
        other(Protocol { handler: 2, ..HTTP }),
        other(Protocol { location: 1, ..HTTP }),
        other(Protocol { tls: 1, ..HTTP }),
        with("1", b"1"),
    ] {
        assert_eq!(take(&mut pool, &identity), None, "{identity:?}");
    }
    assert_eq!(take(&mut pool, &saved), Some(7));

    let saved = with("1", b"23");
    keep(&mut pool, &saved, 8);
    for identity in [with("1", b""), with("1", b"2"), with("1", b"24"), with("12", b"3")] {
        assert_eq!(take(&mut pool, &identity), None, "{identity:?}");
    }
    assert_eq!(take(&mut pool, &saved), Some(8));
}

#[test]
fn only_what_differs_in_protocol_or_attributes_is_another_one() {
    let mut pool = pool(4, 4);
    let wanted = Identity { attributes: b"2", ..id("a", "1") };
    keep(&mut pool, &id("b", "1"), 1);
    keep(&mut pool, &id("a", "12"), 2);
    assert!(!pool.pool.has_other(&wanted));
    keep(&mut pool, &id("a", "1"), 3);
    assert!(pool.pool.has_other(&wanted));
    take(&mut pool, &id("a", "1"));
    assert!(!pool.pool.has_other(&wanted));
    keep(&mut pool, &Identity { protocol: Protocol { tls: 1, ..HTTP }, ..wanted }, 4);
    assert!(pool.pool.has_other(&wanted));
}

/// The hashes are useless here: all identities have the same ones.
#[test]
fn equal_hashes_are_not_equal_identities() {
    let mut pool = pool(8, 8);
    let hashes = Some(pool.pool.hasher.hash(&id("a", "1")));
    let same = || Lookup { hashes, ..Lookup::default() };
    let identities = [id("a", "1"), id("b", "1"), id("a", "2"), id("", "")];
    for (value, identity) in (0..).zip(&identities) {
        pool.put(identity, &mut same(), (value, ANY_TIME), NO_LIMIT).unwrap();
    }
    assert_eq!(pool.take(&id("b", "2"), &mut same(), 0), Take::Nothing);
    for (value, identity) in (0..).zip(&identities) {
        assert_eq!(pool.take(identity, &mut same(), 0), Take::Found(value));
    }
}

/// A request looked its slice up; when it has finished, the place belongs to another slice.
#[test]
fn a_lookup_does_not_outlive_its_slice() {
    let mut pool = pool(1, 1);
    let (a, b) = (id("a", "1"), id("b", "1"));
    let mut lookup = Lookup::default();
    put_by(&mut pool, &a, &mut lookup, (1, ANY_TIME), NO_LIMIT).0.unwrap();
    assert_eq!(take_by(&mut pool, &a, &mut lookup, 0), (Some(1), vec![]));
    keep(&mut pool, &b, 2);
    assert_eq!(take(&mut pool, &b), Some(2));

    put_by(&mut pool, &a, &mut lookup, (1, ANY_TIME), NO_LIMIT).0.unwrap();
    assert_eq!(take(&mut pool, &b), None);
    assert_eq!(take(&mut pool, &a), Some(1));
}

/// The slice is still there, but the place of the server belongs to another server.
#[test]
fn a_lookup_does_not_outlive_its_peer() {
    let mut pool = pool(1, 1);
    let (one, two) = (id("a", "1"), id("a", "2"));
    let mut lookup = Lookup::default();
    put_by(&mut pool, &one, &mut lookup, (1, ANY_TIME), NO_LIMIT).0.unwrap();
    assert_eq!(take_by(&mut pool, &one, &mut lookup, 0), (Some(1), vec![]));
    keep(&mut pool, &two, 2);
    assert_eq!(take(&mut pool, &two), Some(2));

    put_by(&mut pool, &one, &mut lookup, (1, ANY_TIME), NO_LIMIT).0.unwrap();
    assert_eq!(take(&mut pool, &two), None);
    assert_eq!(take(&mut pool, &one), Some(1));
}

#[test]
fn an_empty_key_is_a_key() {
    let mut pool = pool(4, 4);
    keep(&mut pool, &id("", "1"), 7);
    assert_eq!(take(&mut pool, &id("a", "1")), None);
    assert_eq!(take(&mut pool, &id("", "1")), Some(7));
}

#[test]
fn at_the_limit_the_least_recently_saved_of_all_makes_room() {
    let mut pool = pool(3, 3);
    keep(&mut pool, &id("a", "1"), 1);
    keep(&mut pool, &id("b", "1"), 2);
    assert_eq!(keep(&mut pool, &id("c", "1"), 3), NOTHING);
    assert_eq!(keep(&mut pool, &id("c", "1"), 4), [1]);
    assert_eq!(keep(&mut pool, &id("c", "2"), 5), [2]);
}

#[test]
fn at_the_slice_limit_the_slice_makes_room_over_all_servers() {
    let mut pool = pool(9, 9);
    keep(&mut pool, &id("b", "1"), 1);
    assert_eq!(put(&mut pool, &id("a", "1"), 2, 2).1, NOTHING);
    assert_eq!(put(&mut pool, &id("a", "2"), 3, 2).1, NOTHING);
    assert_eq!(put(&mut pool, &id("a", "2"), 4, 2).1, [2]);
    assert_eq!(take(&mut pool, &id("a", "1")), None);
    assert_eq!(take(&mut pool, &id("b", "1")), Some(1));
}

#[test]
fn a_lower_slice_limit_closes_what_is_beyond_it() {
    let mut pool = pool(9, 9);
    for value in 1..=4 {
        keep(&mut pool, &id("a", "1"), value);
    }
    assert_eq!(put(&mut pool, &id("a", "1"), 5, 2).1, [1, 2, 3]);
    assert_eq!(put(&mut pool, &id("a", "1"), 6, 0), (Err(NotKept::SliceLimit), vec![4, 5]));
    assert_eq!(pool.pop(), None);
}

#[test]
fn a_new_slice_empties_the_least_recently_used_one() {
    let mut pool = pool(9, 2);
    keep(&mut pool, &id("a", "1"), 1);
    keep(&mut pool, &id("a", "2"), 2);
    keep(&mut pool, &id("b", "1"), 3);
    keep(&mut pool, &id("b", "1"), 4);
    assert_eq!(keep(&mut pool, &id("c", "1"), 5), [1, 2]);

    // Taking a connection uses its slice.
    assert_eq!(take(&mut pool, &id("b", "1")), Some(4));
    assert_eq!(keep(&mut pool, &id("d", "1"), 6), [5]);
    assert_eq!(take(&mut pool, &id("b", "1")), Some(3));
}

#[test]
fn an_emptied_slice_is_free_at_once() {
    let mut pool = pool(9, 2);
    keep(&mut pool, &id("a", "1"), 1);
    let (slot, _) = put(&mut pool, &id("b", "1"), 2, NO_LIMIT);
    take(&mut pool, &id("a", "1"));
    assert_eq!(keep(&mut pool, &id("c", "1"), 3), NOTHING);
    assert_eq!(pool.remove(slot.unwrap()), Some(2));
    assert_eq!(keep(&mut pool, &id("d", "1"), 4), NOTHING);
}

#[test]
fn at_its_deadline_a_connection_is_closed_instead_of_used() {
    let mut pool = pool(9, 9);
    let a = id("a", "1");
    put_until(&mut pool, &a, (1, 20), NO_LIMIT).0.unwrap();
    put_until(&mut pool, &a, (2, 10), NO_LIMIT).0.unwrap();
    put_until(&mut pool, &a, (3, 10), NO_LIMIT).0.unwrap();

    assert_eq!(take_at(&mut pool, &a, 9), (Some(3), vec![]));
    assert_eq!(take_at(&mut pool, &a, 10), (Some(1), vec![2]));

    put_until(&mut pool, &a, (4, 20), NO_LIMIT).0.unwrap();
    assert_eq!(take_at(&mut pool, &a, 20), (None, vec![4]));
    assert_eq!(pool.pop(), None);
}

/// Closing a connection does not use its slice, which is not put before the others.
#[test]
fn a_slice_is_not_used_by_closing() {
    let mut pool = pool(9, 2);
    keep(&mut pool, &id("a", "1"), 1);
    put_until(&mut pool, &id("a", "2"), (2, 10), NO_LIMIT).0.unwrap();
    keep(&mut pool, &id("b", "1"), 3);
    assert_eq!(take_at(&mut pool, &id("a", "2"), 10), (None, vec![2]));
    assert_eq!(keep(&mut pool, &id("c", "1"), 4), [1]);
}

#[test]
fn zero_keeps_nothing() {
    let refused = (Err(NotKept::Disabled), vec![]);
    assert_eq!(put(&mut pool(0, 9), &id("a", "1"), 1, NO_LIMIT), refused);
    assert_eq!(put(&mut pool(9, 0), &id("a", "1"), 1, NO_LIMIT), refused);
    let refused = (Err(NotKept::SliceLimit), vec![]);
    assert_eq!(put(&mut pool(9, 9), &id("a", "1"), 1, 0), refused);
}

#[test]
fn what_does_not_fit_is_refused_and_closes_nothing() {
    let mut pool = pool(1, 1);
    keep(&mut pool, &id("a", "1"), 1);
    let key = put(&mut pool, &id("123456789", "1"), 2, NO_LIMIT);
    assert_eq!(key, (Err(NotKept::KeyLength), vec![]));
    let address = put(&mut pool, &id("b", "123456789"), 2, NO_LIMIT);
    assert_eq!(address, (Err(NotKept::AddressLength), vec![]));
    assert_eq!(take(&mut pool, &id("a", "1")), Some(1));

    assert_eq!(keep(&mut pool, &id("12345678", "12345678"), 3), NOTHING);
    assert_eq!(take(&mut pool, &id("12345678", "12345678")), Some(3));
}

#[test]
fn hits_are_counted_for_as_long_as_a_slice_has_its_key() {
    let mut pool = pool(4, 1);
    let mut lookup = Lookup::default();
    let hits = |pool: &Idle| {
        pool.pool.slices().map(|slice| (slice.key.to_vec(), slice.hits)).collect::<Vec<_>>()
    };
    let a = id("a", "1");
    keep(&mut pool, &a, 7);
    for n in 0..3 {
        assert_eq!(hits(&pool), [(b"a".to_vec(), n)]);
        // Finding and removing do not count as hits.
        assert_eq!(pool.find(&a, &mut lookup), Some(7));
        pool.pop();
        keep(&mut pool, &a, 7);
        assert_eq!(hits(&pool), [(b"a".to_vec(), n)]);

        assert_eq!(take_by(&mut pool, &a, &mut lookup, 0).0, Some(7));
        assert_eq!(hits(&pool), vec![]);
        keep(&mut pool, &a, 7);
    }
    keep(&mut pool, &id("b", "1"), 8);
    assert_eq!(hits(&pool), [(b"b".to_vec(), 0)]);
    keep(&mut pool, &id("a", "1"), 7);
    assert_eq!(hits(&pool), [(b"a".to_vec(), 0)]);
}

#[test]
fn pop_empties_the_pool_from_the_oldest() {
    let mut pool = pool(3, 3);
    for (value, key) in (1..).zip(["a", "b", "a"]) {
        keep(&mut pool, &id(key, "1"), value);
    }
    let popped: Vec<_> = core::iter::from_fn(|| pool.pop()).collect();
    assert_eq!(popped, [1, 2, 3]);
}

#[test]
fn each_seed_has_its_own_hashes() {
    let hashes = |i: usize| {
        let mut seed = SEED;
        seed[i] ^= 1;
        Hasher::new(&seed).hash(&id("a", "1"))
    };
    let slices: HashSet<u32> = (0..16).map(|i| hashes(i).slice).collect();
    let peers: HashSet<u32> = (0..24).map(|i| hashes(i).peer).collect();
    assert_eq!((slices.len(), peers.len()), (16, 24));
}
