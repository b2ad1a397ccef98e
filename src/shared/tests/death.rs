//! What is left when a worker dies in an operation.

use super::short::*;
use super::*;

#[test]
fn if_a_worker_dies_in_an_operation_all_connections_are_forgotten() {
    let mut shared = shared(8, 8);
    let tickets = [
        keep(&mut shared, &id("a", "1"), A, 1),
        keep(&mut shared, &id("a", "1"), B, 2),
        keep(&mut shared, &id("b", "1"), Holder::InFlight, -1),
    ];
    shared.die(|_| ());
    for ticket in tickets {
        assert_eq!(holders(&mut shared, ticket), []);
        assert!(shared.run(|all| all.get(ticket.slot).is_none()));
    }
    assert_eq!((find(&mut shared, &id("a", "1")), count(&mut shared)), (None, 0));
}

#[test]
fn if_a_worker_dies_in_an_operation_all_workers_look_at_everything() {
    let mut shared = shared(8, 8);
    shared.die(|_| ());
    for number in 0..WORKERS {
        assert!(shared.run(|all| all.is_called(number)));
        assert_eq!(shared.run(|all| all.calls(number)), Some(Calls::AllFrom(0)));
        assert_eq!(shared.run(|all| all.process(number)), Some(process(number)));
    }
    assert!(!shared.run(|all| all.is_called(0)));
}

/// A call more is as good as no call more.
#[test]
fn who_must_look_at_everything_can_be_called() {
    let mut shared = shared(8, 8);
    shared.die(|_| ());
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    shared.run(|all| all.want(ticket.slot));
    assert_eq!(shared.run(|all| all.calls(0)), Some(Calls::AllFrom(0)));
}

#[test]
fn one_death_is_noticed_once() {
    let mut shared = shared(8, 8);
    shared.die(|_| ());
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    assert_eq!(holders(&mut shared, ticket), [A]);
}

#[test]
fn an_operation_is_marked_while_it_runs() {
    let mut shared = shared(8, 8);
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    let run = std::panic::AssertUnwindSafe(|| shared.run(|_| panic!("it dies")));
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!((holders(&mut shared, ticket), count(&mut shared)), (vec![], 0));
}

#[test]
fn the_limits_in_force_outlive_a_death() {
    let mut shared = shared(8, 8);
    shared.run(|all| all.set_limits(5, 2, Some(1)));
    shared.die(|all| all.pool.set_limits(7, Some(7)));
    keep(&mut shared, &id("a", "1"), A, 1);
    let full = SharedPut::Close(SlotIndex::new(0), Evicted::Slices);
    assert_eq!(put(&mut shared, &id("b", "1"), (A, 2), NO_LIMIT), full);
    keep(&mut shared, &id("a", "1"), A, 2);
    let full = SharedPut::Close(SlotIndex::new(0), Evicted::Connections);
    assert_eq!(put(&mut shared, &id("a", "1"), (A, 3), NO_LIMIT), full);
}

/// A request looked its slice up before; the places belong to other slices and servers now.
#[test]
fn a_lookup_does_not_outlive_a_death() {
    let mut shared = shared(8, 8);
    let (a, b) = (id("a", "1"), id("b", "1"));
    let mut lookup = Lookup::default();
    keep(&mut shared, &a, A, 1);
    assert!(shared.run(|all| all.find(&a, &mut lookup)).is_some());
    shared.die(|_| ());
    keep(&mut shared, &b, A, 2);
    assert_eq!(shared.run(|all| all.find(&a, &mut lookup)), None);
    shared.run(|all| all.put(|| a, &mut lookup, NO_LIMIT, (A, 3, &facts(3))));
    let found = find(&mut shared, &a).unwrap();
    assert_eq!(shared.run(|all| all.get(found).unwrap().fd), 3);
}

#[test]
fn after_a_death_dead_workers_are_still_found() {
    let mut shared = shared(8, 8);
    shared.run(|all| all.search(1000, |_| true));
    shared.die(|_| ());
    let ticket = keep(&mut shared, &id("a", "1"), A, 1);
    shared.run(|all| all.search(1500, |dead| dead != process(0)));
    assert_eq!((holders(&mut shared, ticket), count(&mut shared)), (vec![], 0));
}
