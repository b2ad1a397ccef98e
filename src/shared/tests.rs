//! The promises about shared connections, one by one.
//!
//! What a death at any instruction leaves behind is tested by `tests/deaths.rs`.

use std::collections::HashSet;
use std::vec::Vec;

use self::short::*;
use super::*;

mod death;
mod model;
mod short;
mod threads;

#[test]
fn a_kept_connection_has_its_holder_and_no_other() {
    let mut shared = shared(4, 4);
    let ticket = keep(&mut shared, &id("a", "1"), A, 7);
    assert_eq!(holders(&mut shared, ticket), [A]);
    let entry = shared.run(|all| *all.held(ticket, A).unwrap());
    assert_eq!((entry.holder, entry.fd, entry.idle), (A, 7, facts(7)));
    assert_eq!(find(&mut shared, &id("a", "1")), Some(ticket.slot));
    assert_eq!(find(&mut shared, &id("b", "1")), None);
}

#[test]
fn a_passed_connection_has_its_next_holder_and_no_other() {
    let mut shared = shared(4, 4);
    let old = keep(&mut shared, &id("a", "1"), A, 7);
    let new = shared.run(|all| all.pass(old.slot, B, 9));
    assert_eq!(holders(&mut shared, old), []);
    assert_eq!(holders(&mut shared, new), [B]);
    let entry = shared.run(|all| *all.held(new, B).unwrap());
    assert_eq!((entry.fd, entry.idle), (9, facts(7)));
}

/// It may have been with another worker meanwhile.
#[test]
fn an_old_ticket_stays_stale_when_the_connection_comes_back() {
    let mut shared = shared(4, 4);
    let old = keep(&mut shared, &id("a", "1"), A, 7);
    shared.run(|all| all.pass(old.slot, B, 9));
    let back = shared.run(|all| all.pass(old.slot, A, 7));
    assert_eq!(holders(&mut shared, old), []);
    assert_eq!(holders(&mut shared, back), [A]);
}

#[test]
fn a_passed_connection_stays_where_it_was_among_the_others() {
    let mut shared = shared(4, 4);
    let a = id("a", "1");
    let first = keep(&mut shared, &a, A, 1);
    let second = keep(&mut shared, &a, A, 2);
    shared.run(|all| all.pass(first.slot, B, 9));
    assert_eq!((find(&mut shared, &a), count(&mut shared)), (Some(second.slot), 2));
    shared.run(|all| all.take(second.slot));
    assert_eq!(find(&mut shared, &a), Some(first.slot));
}

#[test]
fn a_connection_on_its_way_has_no_worker() {
    let mut shared = shared(4, 4);
    let old = keep(&mut shared, &id("a", "1"), A, 7);
    let letter = shared.run(|all| all.pass(old.slot, Holder::InFlight, -1));
    assert_eq!(holders(&mut shared, letter), [Holder::InFlight]);
    assert_eq!(count(&mut shared), 1);
    let received = shared.run(|all| all.pass(letter.slot, B, 9));
    assert_eq!(holders(&mut shared, letter), []);
    assert_eq!(holders(&mut shared, received), [B]);
}

#[test]
fn a_taken_connection_has_no_holder_and_calls_nobody() {
    let mut shared = shared(4, 4);
    let ticket = keep(&mut shared, &id("a", "1"), A, 7);
    shared.run(|all| all.take(ticket.slot));
    assert_eq!(holders(&mut shared, ticket), []);
    assert!(shared.run(|all| all.get(ticket.slot).is_none()));
    assert_eq!((find(&mut shared, &id("a", "1")), count(&mut shared)), (None, 0));
    assert!(!shared.run(|all| (0..WORKERS).any(|number| all.is_called(number))));
}

#[test]
fn taking_is_a_hit_of_the_slice_and_removing_is_not() {
    let mut shared = shared(4, 4);
    let hits = |shared: &mut Shared<_>| shared.run(|all| all.pool().slices().next().unwrap().hits);
    for fd in [1, 2, 3] {
        keep(&mut shared, &id("a", "1"), A, fd);
    }
    for (is_taken, expected) in [(true, 1), (false, 1)] {
        let slot = find(&mut shared, &id("a", "1")).unwrap();
        shared.run(|all| if is_taken { all.take(slot) } else { all.remove(slot, A) });
        assert_eq!(hits(&mut shared), expected);
    }
}

#[test]
fn a_removed_connection_has_no_holder() {
    let mut shared = shared(4, 4);
    for asks in [A, B] {
        let ticket = keep(&mut shared, &id("a", "1"), A, 7);
        shared.run(|all| all.remove(ticket.slot, asks));
        assert_eq!(holders(&mut shared, ticket), []);
        assert!(shared.run(|all| all.get(ticket.slot).is_none()));
        assert_eq!((find(&mut shared, &id("a", "1")), count(&mut shared)), (None, 0));
    }
}

#[test]
fn the_holder_is_called_if_another_worker_takes_its_connection_away() {
    let mut shared = shared(8, 8);
    let passed = keep(&mut shared, &id("a", "1"), A, 1).slot;
    let removed = keep(&mut shared, &id("a", "1"), A, 2).slot;
    shared.run(|all| all.pass(passed, B, 9));
    shared.run(|all| all.remove(removed, B));
    assert!(shared.run(|all| all.is_called(0)));
    assert_eq!(calls(&mut shared, 0), [passed.get(), removed.get()]);
    for other in 1..WORKERS {
        assert_eq!(calls(&mut shared, other), NOTHING);
    }
}

#[test]
fn the_holder_is_not_called_to_what_it_removes_itself() {
    let mut shared = shared(4, 4);
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    shared.run(|all| all.remove(ticket.slot, A));
    assert_eq!(calls(&mut shared, 0), NOTHING);
}

#[test]
fn nobody_is_called_to_a_connection_on_its_way() {
    let mut shared = shared(4, 4);
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    shared.run(|all| all.pass(ticket.slot, Holder::InFlight, -1));
    assert_eq!(calls(&mut shared, 0), [ticket.slot.get()]);
    shared.run(|all| all.want(ticket.slot));
    shared.run(|all| all.remove(ticket.slot, B));
    assert!(!shared.run(|all| (0..WORKERS).any(|number| all.is_called(number))));
}

#[test]
fn a_wanted_connection_stays_with_its_holder_who_is_called_once() {
    let mut shared = shared(4, 4);
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    assert!(!shared.run(|all| all.is_wanted(ticket.slot)));
    for _ in 0..3 {
        shared.run(|all| all.want(ticket.slot));
    }
    assert!(shared.run(|all| all.is_wanted(ticket.slot)));
    assert_eq!(calls(&mut shared, 0), [ticket.slot.get()]);
    assert_eq!(holders(&mut shared, ticket), [A]);
}

#[test]
fn a_wanted_connection_is_not_wanted_from_its_next_holder() {
    let mut shared = shared(4, 4);
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    shared.run(|all| all.want(ticket.slot));
    shared.run(|all| all.pass(ticket.slot, B, 9));
    assert!(!shared.run(|all| all.is_wanted(ticket.slot)));
    assert_eq!(calls(&mut shared, 1), NOTHING);
}

#[test]
fn the_next_connection_of_a_slot_is_not_wanted() {
    let mut shared = shared(1, 1);
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    shared.run(|all| all.want(ticket.slot));
    shared.run(|all| all.remove(ticket.slot, A));
    assert!(!shared.run(|all| all.is_wanted(ticket.slot)));
    // Too late: the slot is empty.
    shared.run(|all| all.want(ticket.slot));
    let next = keep(&mut shared, &id("a", "1"), A, 2);
    assert_eq!(next.slot, ticket.slot);
    assert!(!shared.run(|all| all.is_wanted(next.slot)));
}

#[test]
fn calls_are_told_one_by_one_and_then_all_at_once() {
    let mut shared = shared(40, 40);
    for count in [1, CALLS, CALLS + 1, CALLS + 2] {
        let slots: Vec<u32> =
            (0..count).map(|_| keep(&mut shared, &id("a", "1"), A, 1).slot.get()).collect();
        for &slot in &slots {
            shared.run(|all| all.remove(SlotIndex::new(slot), B));
        }
        if count <= CALLS {
            assert_eq!(calls(&mut shared, 0), slots);
        } else {
            assert_eq!(shared.run(|all| all.calls(0)), Some(Calls::AllFrom(0)));
        }
        assert!(!shared.run(|all| all.is_called(0)));
        assert_eq!(shared.run(|all| all.calls(0)), None);
    }
}

#[test]
fn a_worker_that_has_never_begun_is_not_called() {
    let mut shared = shared(4, 4);
    let unknown = Holder::Worker(9);
    let ticket = keep(&mut shared, &id("a", "1"), unknown, 1);
    shared.run(|all| all.remove(ticket.slot, A));
    assert!(!shared.run(|all| all.is_called(9)));
    assert_eq!(shared.run(|all| (all.calls(9), all.process(9))), (None, None));
}

#[test]
fn a_worker_begins_without_the_connections_and_calls_of_an_earlier_one() {
    let mut shared = shared(8, 8);
    let of_a = keep(&mut shared, &id("a", "1"), A, 1);
    let of_b = keep(&mut shared, &id("a", "1"), B, 2);
    let wanted = keep(&mut shared, &id("a", "1"), A, 3);
    shared.run(|all| all.want(wanted.slot));
    shared.run(|all| all.set_ending(0));

    shared.run(|all| all.begin(0, 200));
    assert_eq!(shared.run(|all| (all.process(0), all.process(1))), (Some(200), Some(process(1))));
    assert_eq!(calls(&mut shared, 0), NOTHING);
    assert!(shared.run(|all| all.has_receiver(|process| process == 200)));
    assert_eq!(holders(&mut shared, of_a), []);
    assert_eq!(holders(&mut shared, of_b), [B]);
    assert_eq!((count(&mut shared), find(&mut shared, &id("a", "1"))), (1, Some(of_b.slot)));
}

#[test]
fn any_number_below_the_most_can_begin() {
    let mut shared = shared(4, 4);
    shared.run(|all| all.begin(15, 200));
    assert_eq!(shared.run(|all| (all.process(15), all.process(14))), (Some(200), Some(0)));
    // A number that nobody has is no process that could have died.
    shared.run(|all| all.search(0, |process| process != 0));
    assert!(!shared.run(|all| all.has_receiver(|process| process == 0)));
}

#[test]
fn only_a_living_worker_that_does_not_end_receives() {
    let mut shared = shared(4, 4);
    assert!(shared.run(|all| all.has_receiver(|_| true)));
    assert!(!shared.run(|all| all.has_receiver(|_| false)));
    for number in 0..WORKERS {
        assert!(shared.run(|all| all.has_receiver(|_| true)));
        if number % 2 == 0 {
            shared.run(|all| all.set_ending(number));
        } else {
            shared.run(|all| all.forget(number));
        }
    }
    assert!(!shared.run(|all| all.has_receiver(|_| true)));
}

#[test]
fn the_connections_of_a_worker_are_forgotten_and_no_others() {
    let mut shared = shared(8, 8);
    let of_a = [1, 2].map(|fd| keep(&mut shared, &id("a", "1"), A, fd));
    let of_b = keep(&mut shared, &id("b", "1"), B, 3);
    let in_flight = keep(&mut shared, &id("b", "1"), Holder::InFlight, -1);
    shared.run(|all| all.forget(0));
    assert_eq!(of_a.map(|ticket| holders(&mut shared, ticket).len()), [0, 0]);
    assert_eq!(holders(&mut shared, of_b), [B]);
    assert_eq!(holders(&mut shared, in_flight), [Holder::InFlight]);
    assert_eq!((count(&mut shared), find(&mut shared, &id("a", "1"))), (2, None));
    assert_eq!(shared.run(|all| all.process(0)), Some(0));
    assert_eq!(shared.run(|all| all.pool().slices_in_use()), Some(1));
}

#[test]
fn the_connections_of_dead_workers_are_found_and_forgotten() {
    let mut shared = shared(8, 8);
    let of_a = keep(&mut shared, &id("a", "1"), A, 1);
    let of_b = keep(&mut shared, &id("a", "1"), B, 2);
    shared.run(|all| all.search(1000, |dead| dead != process(0)));
    assert_eq!((holders(&mut shared, of_a), holders(&mut shared, of_b)), (vec![], vec![B]));
    assert_eq!(shared.run(|all| (all.process(0), all.process(1))), (Some(0), Some(process(1))));
    assert_eq!(count(&mut shared), 1);
}

#[test]
fn dead_workers_are_searched_for_twice_a_second() {
    let mut shared = shared(8, 8);
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    shared.run(|all| all.search(1000, |_| true));
    shared.run(|all| all.search(1499, |_| panic!("too early")));
    assert_eq!(holders(&mut shared, ticket), [A]);
    shared.run(|all| all.search(1500, |_| false));
    assert_eq!(holders(&mut shared, ticket), []);
}

#[test]
fn a_connection_is_on_its_way_from_one_search_to_the_next_at_most() {
    let mut shared = shared(8, 8);
    let send = |shared: &mut Shared<_>| {
        let ticket = keep(shared, &id("a", "1"), A, 1);
        shared.run(|all| all.pass(ticket.slot, Holder::InFlight, -1))
    };
    let old = send(&mut shared);
    shared.run(|all| all.search(1000, |_| true));
    let young = send(&mut shared);
    assert_eq!(holders(&mut shared, old), [Holder::InFlight]);
    shared.run(|all| all.search(1500, |_| true));
    assert_eq!(holders(&mut shared, old), []);
    assert_eq!(holders(&mut shared, young), [Holder::InFlight]);
    shared.run(|all| all.search(2000, |_| true));
    assert_eq!((holders(&mut shared, young), count(&mut shared)), (vec![], 0));
}

#[test]
fn a_received_connection_is_not_forgotten_by_the_next_search() {
    let mut shared = shared(8, 8);
    let letter = keep(&mut shared, &id("a", "1"), Holder::InFlight, -1);
    shared.run(|all| all.search(1000, |_| true));
    let received = shared.run(|all| all.pass(letter.slot, B, 9));
    assert!(!shared.run(|all| all.is_wanted(received.slot)));
    for now in [1500, 2000] {
        shared.run(|all| all.search(now, |_| true));
        assert_eq!((holders(&mut shared, received), calls(&mut shared, 1)), (vec![B], vec![]));
    }
    // It is sent again: from the beginning.
    let letter = shared.run(|all| all.pass(letter.slot, Holder::InFlight, -1));
    shared.run(|all| all.search(2500, |_| true));
    assert_eq!(holders(&mut shared, letter), [Holder::InFlight]);
}

#[test]
fn the_limits_are_those_of_the_latest_configuration() {
    let mut shared = shared(8, 8);
    let full = |shared: &mut Shared<_>, fd| {
        put(shared, &id("a", "1"), (A, fd), NO_LIMIT)
            == SharedPut::Close(SlotIndex::new(0), Evicted::Connections)
    };
    shared.run(|all| all.set_limits(5, 1, Some(1)));
    keep(&mut shared, &id("a", "1"), A, 1);
    assert!(full(&mut shared, 2));
    shared.run(|all| all.set_limits(4, 8, Some(8)));
    assert!(full(&mut shared, 2));
    // Each worker of a configuration sets them.
    shared.run(|all| all.set_limits(5, 2, Some(2)));
    keep(&mut shared, &id("a", "1"), A, 2);
    assert!(full(&mut shared, 3));
    shared.run(|all| all.set_limits(6, 3, Some(3)));
    keep(&mut shared, &id("a", "1"), A, 3);
    assert!(full(&mut shared, 4));
}

#[test]
fn a_slice_limit_of_before_holds_only_if_it_is_smaller() {
    let mut shared = shared(8, 8);
    shared.run(|all| all.set_limits(5, 8, Some(8)));
    shared.run(|all| all.set_slice_limit(5, 3));
    shared.run(|all| all.set_slice_limit(4, 7));
    let limit = |shared: &mut Shared<_>, own, limit| shared.run(|all| all.slice_limit(own, limit));
    assert_eq!([2, 3, 4].map(|own| limit(&mut shared, 4, own)), [2, 3, 3]);
    assert_eq!(limit(&mut shared, 5, 4), 4);
}

#[test]
fn what_is_too_many_is_told_under_the_configuration_in_force() {
    let mut shared = shared(8, 8);
    let tickets = [1, 2, 3].map(|fd| keep(&mut shared, &id("a", "1"), A, fd));
    shared.run(|all| all.set_limits(5, 1, Some(8)));
    let excess = |shared: &mut Shared<_>, configuration| {
        shared.run(|all| all.excess(configuration, NO_LIMIT))
    };
    for other in [4, 6] {
        assert_eq!(excess(&mut shared, other), None);
    }
    for ticket in &tickets[..2] {
        assert_eq!(excess(&mut shared, 5), Some((ticket.slot, Evicted::Connections)));
        shared.run(|all| all.remove(ticket.slot, B));
    }
    assert_eq!(excess(&mut shared, 5), None);
}

#[test]
fn slices_can_have_too_many_connections_and_be_too_many() {
    let mut shared = shared(8, 8);
    let a = [1, 2].map(|fd| keep(&mut shared, &id("a", "1"), A, fd));
    let b = keep(&mut shared, &id("b", "1"), B, 3);
    assert_eq!(shared.run(|all| all.excess(0, 1)), Some((a[0].slot, Evicted::SliceLimit)));
    shared.run(|all| all.remove(a[0].slot, A));
    shared.run(|all| all.set_limits(1, 8, Some(1)));
    assert_eq!(shared.run(|all| all.excess(1, 1)), Some((a[1].slot, Evicted::Slices)));
    shared.run(|all| all.remove(a[1].slot, A));
    assert_eq!(shared.run(|all| all.excess(1, 1)), None);
    assert_eq!(holders(&mut shared, b), [B]);
}

#[test]
fn at_the_limit_the_least_recently_saved_of_all_workers_makes_room() {
    let mut shared = shared(2, 2);
    let of_a = keep(&mut shared, &id("a", "1"), A, 1);
    keep(&mut shared, &id("b", "1"), B, 2);
    let full = SharedPut::Close(of_a.slot, Evicted::Connections);
    assert_eq!(put(&mut shared, &id("b", "1"), (B, 3), NO_LIMIT), full);
    // Nothing has left yet.
    assert_eq!((count(&mut shared), holders(&mut shared, of_a)), (2, vec![A]));
    shared.run(|all| all.remove(of_a.slot, B));
    keep(&mut shared, &id("b", "1"), B, 3);
    assert_eq!((count(&mut shared), holders(&mut shared, of_a)), (2, vec![]));
}

#[test]
fn a_slice_has_its_limit_over_all_workers() {
    let mut shared = shared(8, 8);
    let of_a = keep(&mut shared, &id("a", "1"), A, 1);
    keep(&mut shared, &id("a", "2"), B, 2);
    let full = SharedPut::Close(of_a.slot, Evicted::SliceLimit);
    assert_eq!(put(&mut shared, &id("a", "2"), (B, 3), 2), full);
    assert!(matches!(put(&mut shared, &id("b", "2"), (B, 3), 2), SharedPut::Kept(_)));
}

#[test]
fn slices_have_their_limit_over_all_workers() {
    let mut shared = shared(8, 1);
    let of_a = keep(&mut shared, &id("a", "1"), A, 1);
    let full = SharedPut::Close(of_a.slot, Evicted::Slices);
    assert_eq!(put(&mut shared, &id("b", "1"), (B, 2), NO_LIMIT), full);
}

#[test]
fn what_the_pool_refuses_is_not_kept() {
    let mut shared = shared(8, 8);
    let refused = SharedPut::NotKept(NotKept::SliceLimit);
    assert_eq!(put(&mut shared, &id("a", "1"), (A, 1), 0), refused);
    let refused = SharedPut::NotKept(NotKept::KeyLength);
    assert_eq!(put(&mut shared, &id("123456789", "1"), (A, 1), NO_LIMIT), refused);
    shared.run(|all| all.set_limits(1, 0, Some(8)));
    let refused = SharedPut::NotKept(NotKept::Disabled);
    assert_eq!(put(&mut shared, &id("a", "1"), (A, 1), NO_LIMIT), refused);
    assert_eq!(count(&mut shared), 0);
}

#[test]
fn no_two_tickets_are_equal() {
    let mut shared = shared(2, 2);
    let mut known = HashSet::new();
    let mut note = |ticket: Ticket| {
        assert!(known.insert((ticket.slot, ticket.generation)), "{ticket:?}");
        assert_ne!(ticket.generation, 0);
    };
    for round in 0..20 {
        let first = keep(&mut shared, &id("a", "1"), A, 1);
        let second = keep(&mut shared, &id("b", "1"), B, 2);
        note(first);
        note(second);
        note(shared.run(|all| all.pass(first.slot, B, 3)));
        note(shared.run(|all| all.pass(first.slot, Holder::InFlight, -1)));
        match round % 4 {
            0 => shared.run(|all| [first, second].map(|ticket| all.take(ticket.slot))),
            1 => shared.run(|all| [first, second].map(|ticket| all.remove(ticket.slot, A))),
            2 => shared.run(|all| {
                all.begin(1, process(1));
                [1, 1001].map(|more| all.search(round * 10_000 + more, |_| true))
            }),
            _ => [(), ()].map(|()| shared.die(|_| ())),
        };
        assert_eq!(count(&mut shared), 0);
    }
    assert_eq!(known.len(), 80);
}
