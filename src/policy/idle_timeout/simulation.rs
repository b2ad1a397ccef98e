//! What learning a server's idle timeout is worth with servers of all kinds.
//!
//! To print the table of all: `cargo test --lib print_all_outcomes -- --ignored --nocapture`.

use self::scenarios::*;
use self::server::*;
use self::world::*;

/// So often, requests come at about the end of 5 seconds of idle time.
const PERIOD: Micros = 5030 * MILLISECOND;

mod random;
mod scenarios;
mod server;
mod world;

/// Without learning and with it, for half an hour.
fn compare(server: &Server, traffic: &Traffic) -> [Outcome; 2] {
    [false, true].map(|learn| World::run(server, traffic, learn, 30 * MINUTE))
}

#[test]
fn no_request_meets_the_timeout_once_it_is_known() {
    let mut failed = 0;
    for (name, server) in exact().into_iter().take(3).chain([("sweeps", others().remove(0).1)]) {
        for (traffic_name, traffic) in [("4 a slice", bursts()), ("5.03 s", periodic(PERIOD, 4))] {
            let [without, with] = compare(&server, &traffic);
            failed += without.raced;
            assert!(with.raced <= 3, "{name}, {traffic_name}: {}", with.raced);
            assert_eq!((with.raced_late, with.raced_knowing), (0, 0), "{name}, {traffic_name}");
        }
    }
    assert!(failed > 300, "{failed}");
}

#[test]
fn nothing_is_lost_where_there_is_no_timeout() {
    for (name, server) in endless() {
        for (traffic_name, traffic) in [("1 a slice", single()), ("4 s", periodic(4 * SECOND, 1))] {
            let [without, with] = compare(&server, &traffic);
            let kept = with.reuse() / without.reuse();
            assert!(kept > 0.985, "{name}, {traffic_name}: {kept}");
        }
    }
}

#[test]
fn restarts_do_not_change_what_was_learned() {
    for apart in [0, SECOND] {
        let server = restarting_exact(5 * SECOND, MINUTE, apart);
        let [without, with] = compare(&server, &bursts());
        assert!(with.right > with.time / 100 * 98 && with.wrong < with.time / 100, "{apart}");
        assert!(without.raced > 0 && with.raced == 0, "{apart}");
    }
}

#[test]
fn a_change_is_learned_within_a_minute() {
    let server = Server { restarts: restarting(10 * MINUTE, 0).restarts, ..changing(10 * MINUTE) };
    let outcome = World::run(&server, &bursts(), true, 40 * MINUTE);
    for (i, expected) in (0..).zip([Some(5000_u32), Some(2000), Some(10_000), None]) {
        let value = outcome.value_at(i * 10 * MINUTE + MINUTE);
        let error = value.zip(expected).map_or(0, |(value, expected)| expected.abs_diff(value));
        assert!(value.is_some() == expected.is_some() && error < 20, "{i} {value:?}");
    }
    assert_eq!(outcome.raced, 0);
}

#[test]
#[ignore = "prints a table"]
fn print_all_outcomes() {
    println!(
        "| server | traffic | requests | reused without | with | failed without | with \
         | raced without | with | after 3 closes | learned after | right | wrong | changes |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (name, server) in exact().into_iter().chain(others()).chain(endless()) {
        for (traffic_name, traffic) in traffics() {
            let [without, with] =
                [false, true].map(|learn| World::run(&server, &traffic, learn, 60 * MINUTE));
            let part = |time: Micros| 100.0 * time as f64 / with.time as f64;
            let learned = with.values.first().map_or(String::from("–"), |(time, _)| {
                format!("{:.0} s", *time as f64 / SECOND as f64)
            });
            println!(
                "| {name} | {traffic_name} | {} | {:.4} | {:.4} | {} | {} | {} | {} | {} | {learned} \
                 | {:.1} % | {:.1} % | {} |",
                with.requests,
                without.reuse(),
                with.reuse(),
                without.failed,
                with.failed,
                without.raced,
                with.raced,
                with.raced_late,
                part(with.right),
                part(with.wrong),
                with.values.len(),
            );
        }
    }
}
