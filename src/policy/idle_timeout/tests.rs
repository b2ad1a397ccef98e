//! What is learned from single closes, and what is not.

use proptest::prelude::*;

use super::*;

/// Closes, each this long after the one before.
fn closed(ages: &[u32], apart: Time) -> IdleTimeout {
    let mut timeout = IdleTimeout::default();
    for (i, &age) in (1..).zip(ages) {
        timeout.closed(age, 1_000_000 + i * apart);
    }
    timeout
}

#[test]
fn three_closes_at_the_same_age_are_a_timeout() {
    assert_eq!(closed(&[5000, 5010], 1000).get(), None);
    assert_eq!(closed(&[5000, 5010, 4990], 1000).get(), Some(4990));
    assert_eq!(closed(&[1000, 1000, 1000], 100).get(), Some(1000));
    assert_eq!(closed(&[u32::MAX; 3], 100).get(), Some(u32::MAX));
}

#[test]
fn what_happens_at_one_moment_happens_once() {
    assert_eq!(closed(&[5000; 200], 0).get(), None);
    assert_eq!(closed(&[5000; 3], 99).get(), None);
    assert_eq!(closed(&[5000; 3], 100).get(), Some(5000));
    // At least twice the width of the range.
    assert_eq!(closed(&[5000, 5100, 5000], 199).get(), None);
    assert_eq!(closed(&[5000, 5100, 5000], 200).get(), Some(5000));
}

#[test]
fn a_clock_that_wraps_around_is_time_that_has_passed() {
    let mut timeout = IdleTimeout::default();
    for now in [u64::from(u32::MAX), 500, 1000] {
        timeout.closed(5000, now);
    }
    assert_eq!(timeout.get(), Some(5000));
}

#[test]
fn nothing_is_learned_in_the_first_second() {
    assert_eq!(closed(&[999; 20], 1000).get(), None);
    // Nor do these closes disturb.
    assert_eq!(closed(&[5000, 10, 5000, 999, 5000], 1000).get(), Some(5000));
}

#[test]
fn the_wider_the_ages_the_more_closes_are_needed() {
    for (width, needed) in [(0, 3), (57, 3), (58, 4), (135, 4), (136, 5), (500, 12)] {
        let ages: Vec<u32> = (0..20).map(|i| 100_000 - i % 2 * width * 100).collect();
        let learned = (1..20).find(|&n| closed(&ages[..n], 1_000_000).get().is_some());
        assert_eq!(learned, Some(needed), "{width}");
    }
    // Any ages at all.
    let ages: Vec<u32> = (0..200).map(|i| 10_000 - i % 2 * 5010).collect();
    assert_eq!(closed(&ages, 1_000_000).get(), None);
}

#[test]
fn another_age_begins_another_run() {
    assert_eq!(closed(&[5000, 5000, 2000, 5000, 5000], 1000).get(), None);
    assert_eq!(closed(&[5000, 5000, 12_000, 5000, 5000], 1000).get(), None);
    assert_eq!(closed(&[2000, 3000, 2500, 5000, 5000, 5000], 1000).get(), Some(5000));
}

#[test]
fn after_a_restart_three_closes_are_enough() {
    let mut timeout = closed(&[5000; 3], 1000);
    // All at once.
    for age in (1000..4000).step_by(50) {
        timeout.closed(age, 2_000_000);
        assert_eq!(timeout.get(), Some(5000));
    }
    // At about the same age, up to a twentieth.
    for (i, age, expected) in [(1, 2000, 5000), (2, 1905, 5000), (3, 1950, 1905)] {
        timeout.closed(age, 2_002_000 + i * 200);
        assert_eq!(timeout.get(), Some(expected));
    }
}

#[test]
fn the_next_run_takes_the_place() {
    let mut timeout = closed(&[5000; 3], 1000);
    for (ages, expected) in [([2000; 3], 2000), ([2500; 3], 2500), ([9000; 3], 9000)] {
        let start = u64::from(ages[0]) * 1_000_000;
        for (i, age) in (0..).zip(ages) {
            timeout.closed(age, start + i * 100);
        }
        assert_eq!(timeout.get(), Some(expected));
    }
}

#[test]
fn an_open_connection_makes_the_range_wider() {
    let mut timeout = closed(&[5000, 5000], 1000);
    timeout.open(5400, 1_002_500);
    timeout.closed(5000, 1_003_000);
    assert_eq!(timeout.get(), None);
    timeout.closed(5000, 1_004_000);
    assert_eq!(timeout.get(), Some(5000));

    // As one that lives too long ends the run.
    let mut timeout = closed(&[5000, 5000], 1000);
    timeout.open(10_001, 1_002_500);
    timeout.closed(5000, 1_003_000);
    timeout.closed(5000, 1_004_000);
    assert_eq!(timeout.get(), None);
    timeout.closed(5000, 1_005_000);
    assert_eq!(timeout.get(), Some(5000));
}

#[test]
fn some_that_live_as_long_end_a_run() {
    for (survivors, age, expected) in
        [(3, 5000, Some(5000)), (4, 5000, None), (100, 4999, Some(5000))]
    {
        let mut timeout = closed(&[5000, 5000], 1000);
        for i in 0..survivors {
            timeout.open(age, 1_010_000 + i * 100);
        }
        timeout.closed(5000, 1_100_000);
        assert_eq!(timeout.get(), expected, "{survivors} {age}");
    }
    // They are one after the other, with no close between.
    let mut timeout = closed(&[5000, 5000], 1000);
    (0..100).for_each(|_| timeout.open(5000, 1_010_000));
    timeout.closed(5000, 1_100_000);
    assert_eq!(timeout.get(), Some(5000));
}

#[test]
fn a_longer_life_forgets() {
    let mut timeout = closed(&[5000, 5010, 5020], 1000);
    timeout.open(7530, 2_000_000);
    assert_eq!(timeout.get(), Some(5000));
    timeout.open(7531, 2_000_000);
    assert_eq!(timeout.get(), None);

    let mut timeout = closed(&[5000, 5010, 5020], 1000);
    timeout.closed(7530, 2_000_000);
    assert_eq!(timeout.get(), Some(5000));
    timeout.closed(7531, 2_000_000);
    assert_eq!(timeout.get(), None);
}

#[test]
fn many_that_live_as_long_forget() {
    let survive = |timeout: &mut IdleTimeout, number, age| {
        for i in 0..number {
            timeout.open(age, 2_000_000 + i * 100);
        }
        timeout.get()
    };
    assert_eq!(survive(&mut closed(&[5000; 3], 1000), 1000, 4999), Some(5000));
    let mut timeout = closed(&[5000; 3], 1000);
    assert_eq!(survive(&mut timeout, 15, 5000), Some(5000));
    timeout.closed(4999, 2_010_000);
    timeout.open(5000, 2_010_000);
    assert_eq!(timeout.get(), None, "an early close shows nothing");
    let mut timeout = closed(&[5000; 3], 1000);
    assert_eq!(survive(&mut timeout, 15, 5000), Some(5000));
    timeout.closed(5000, 2_010_000);
    timeout.open(5000, 2_010_000);
    assert_eq!(timeout.get(), Some(5000), "one at the timeout does");
    // However wide the range of ages is.
    let ages: Vec<u32> = (0..12).map(|i| 4000 - i % 2 * 1000).collect();
    let mut timeout = closed(&ages, 10_000);
    assert_eq!(timeout.get(), Some(3000));
    assert_eq!(survive(&mut timeout, 16, 3500), None);
    // At one moment they count once.
    let mut timeout = closed(&[5000; 3], 1000);
    (0..100).for_each(|_| timeout.open(5000, 2_000_000));
    assert_eq!(timeout.get(), Some(5000));
}

#[test]
fn the_limit_is_less_by_the_margin_and_at_least_a_second() {
    let limit = |age, margin| closed(&[age; 3], 1000).limit(margin);
    assert_eq!(IdleTimeout::default().limit(0), None);
    assert_eq!(limit(5000, 1000), Some(4000));
    assert_eq!(limit(5000, 0), Some(5000));
    assert_eq!(limit(5000, 4000), Some(1000));
    assert_eq!(limit(5000, 4001), Some(1000));
    assert_eq!(limit(5000, u64::MAX), Some(1000));
    assert_eq!(limit(1000, 0), Some(1000));
}

#[test]
fn the_first_use_is_that_of_a_value() {
    let mut timeout = closed(&[8000; 3], 1000);
    let learn = |timeout: &mut IdleTimeout, age, time: Time| {
        (0..3).for_each(|i| timeout.closed(age, time + i * 1000));
        assert_eq!(timeout.get(), Some(age));
    };
    assert!(timeout.first_use().is_some());
    assert!(timeout.first_use().is_none());
    learn(&mut timeout, 8900, 2_000_000);
    assert!(timeout.first_use().is_none(), "about the same");
    learn(&mut timeout, 8000, 3_000_000);
    assert!(timeout.first_use().is_none(), "and back");
    learn(&mut timeout, 7000, 4_000_000);
    assert!(timeout.first_use().is_some(), "another one");
    timeout.open(20_000, 5_000_000);
    learn(&mut timeout, 7000, 6_000_000);
    assert!(timeout.first_use().is_some(), "the same, after it was forgotten");
}

proptest! {
    /// A server with an exact timer, at any time and with any pauses.
    #[test]
    fn an_exact_timer_is_learned_from_three_closes(
        timeout in 1000_u32..3_600_000,
        late in proptest::array::uniform3(0_u32..=1000),
        pauses in proptest::array::uniform3(0_u64..1_000_000),
        start in 0_u64..1 << 40,
    ) {
        // Up to a hundredth.
        let jitter = u64::from(timeout / 100);
        let mut estimate = IdleTimeout::default();
        let mut now = start;
        for (late, pause) in late.into_iter().zip(pauses) {
            prop_assert_eq!(estimate.get(), None);
            now += pause + (2 * jitter).max(100);
            estimate.closed(timeout + (u64::from(late) * jitter / 1000) as u32, now);
        }
        let learned = estimate.get().unwrap();
        prop_assert!((timeout..=timeout + jitter as u32).contains(&learned));
    }

    /// Whatever is closed within a tenth of a second.
    #[test]
    fn one_moment_teaches_nothing(
        closes in proptest::collection::vec((0_u32.., 0_u64..100), 0..200),
        start in 0_u64..1 << 40,
    ) {
        let mut closes = closes;
        closes.sort_by_key(|&(_, at)| at);
        let mut estimate = IdleTimeout::default();
        for (age, at) in closes {
            estimate.closed(age, start + at);
            prop_assert_eq!(estimate.get(), None);
        }
    }

    /// What is learned is the age of a close, and no connection that was open for much longer
    /// came later.
    #[test]
    fn a_timeout_is_the_age_of_a_close(
        events in proptest::collection::vec(
            (any::<bool>(), prop_oneof![0_u32..8000, 4900_u32..5100, any::<u32>()], 0_u64..500),
            0..300,
        ),
    ) {
        let mut estimate = IdleTimeout::default();
        let (mut now, mut ages) = (0, Vec::new());
        for (is_close, age, pause) in events {
            now += pause;
            if is_close {
                estimate.closed(age, now);
                ages.push(age);
            } else {
                estimate.open(age, now);
            }
            if let Some(timeout) = estimate.get() {
                prop_assert!(timeout >= 1000 && ages.contains(&timeout));
                prop_assert!(u64::from(age) <= u64::from(timeout) * 3);
                prop_assert!(estimate.limit(500).unwrap() >= 1000);
            }
        }
    }
}
