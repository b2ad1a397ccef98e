//! How long a server keeps idle connections, learned from the connections that it closes.
//!
//! A server with an idle timeout closes connections at the same age, at different moments. Any other
//! reason to close them looks different: a server that restarts or sheds connections closes those
//! of any age at one moment, and a broken network closes them at any age. So:
//!
//! - Closes that follow one another form a **run**, as long as their ages lie close together; one
//!   that does not belong to it begins another one. A connection that is seen open at a higher age
//!   belongs to the run as well: it makes the range of ages wider.
//! - A close counts if it is some time after the one that counted last, and at least twice the width
//!   of the range: what happens at one moment happens once.
//! - A run is a timeout once it is [unlikely enough](Ages::needed) that closes at any age lie as close
//!   together: after 3 closes of a server with an exact timer, and up to 12 of one that looks for idle
//!   connections from time to time. The **timeout** is the shortest age in the run.
//! - The next run takes its place, with a timeout that is shorter or longer. A connection that
//!   lives half as long again as any in the run shows that there is no such timeout any more, and so
//!   do many that live longer, one after the other, while none is closed.
//!
//! Nothing is learned from the first second of a connection's idle time.

#![forbid(unsafe_code)]

use super::Time;

/// The shortest time that is learned, and the shortest limit that comes from it, in milliseconds.
const SHORTEST: u32 = 1000;
/// The shortest time between two closes that count, in milliseconds.
const APART: u32 = 100;
/// The probability with which a run of closes at any age may be taken for a timeout.
const CHANCE: f64 = 0.01;
/// So many connections that live longer than the timeout, while none is closed, show that there is
/// none.
const SURVIVORS: u8 = 16;

/// A timeout that differs by more than this part of it is another one.
const CHANGE: u32 = 8;

/// A range of ages, in milliseconds. The default is empty.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Ages {
    shortest: u32,
    longest: u32,
}

impl Ages {
    fn of(age: u32) -> Self {
        Ages { shortest: age, longest: age }
    }

    fn is_empty(self) -> bool {
        self.longest == 0
    }

    fn width(self) -> u32 {
        self.longest.saturating_sub(self.shortest)
    }

    /// The range with one more age; `None` if that one is not near.
    fn with(self, age: u32) -> Option<Self> {
        let ages = Ages { shortest: self.shortest.min(age), longest: self.longest.max(age) };
        (ages.width() <= ages.longest / 2).then_some(ages)
    }

    /// Whether so many closes are a timeout. The probability that `n` ages, each anywhere between 0
    /// and the longest one, lie in a range of this width is at most `n * (width / longest)^(n - 1)`.
    fn needed(self, closes: u8) -> bool {
        let part = f64::from(self.width()) / f64::from(self.longest);
        closes > 2 && f64::from(closes) * part.powi(i32::from(closes).saturating_sub(1)) < CHANCE
    }

    /// The age from which on a connection shows that these are not those of a timeout.
    fn end(self) -> u32 {
        self.longest.saturating_add(self.longest / 2)
    }
}

/// Closes, one after the other, at about the same age. The default is none.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    ages: Ages,
    /// How many count.
    closes: u8,
    /// When the last one of these was.
    last: Time,
}

/// What is known of a server's idle timeout. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdleTimeout {
    /// The run from which the timeout was learned; empty if there is none.
    learned: Ages,
    /// How many connections have lived longer since the last one was closed.
    survivors: u8,
    /// Whether [`Self::is_first_use`] was true.
    was_used: bool,
    run: Run,
}

impl IdleTimeout {
    /// The idle time after which the server closes a connection, in milliseconds.
    pub fn get(&self) -> Option<u32> {
        (!self.learned.is_empty()).then_some(self.learned.shortest)
    }

    /// The longest idle time after which a connection is used, in milliseconds: less than the
    /// timeout by the `margin`, but at least a second.
    pub fn limit(&self, margin: u64) -> Option<u32> {
        let margin = u32::try_from(margin).unwrap_or(u32::MAX);
        self.get().map(|timeout| timeout.saturating_sub(margin).max(SHORTEST))
    }

    /// Whether the timeout is used for the first time, at about this length.
    pub fn is_first_use(&mut self) -> bool {
        !core::mem::replace(&mut self.was_used, true)
    }

    /// The server has closed a connection that was idle for this time, in milliseconds.
    pub fn closed(&mut self, age: u32, now: Time) {
        if age < SHORTEST {
            return;
        }
        if age > self.learned.end() {
            self.forget();
        }
        if age >= self.learned.shortest {
            self.survivors = 0;
        }
        self.run = match self.run.ages.with(age) {
            Some(ages) => {
                let apart = ages.width().saturating_mul(2).max(APART);
                let counts = now.saturating_sub(self.run.last) >= u64::from(apart);
                Run {
                    ages,
                    closes: self.run.closes.saturating_add(counts.into()),
                    last: if counts { now } else { self.run.last },
                }
            }
            None => Run { ages: Ages::of(age), closes: 1, last: now },
        };
        if self.run.ages.needed(self.run.closes) {
            self.learn();
        }
    }

    /// A connection is open that has been idle for this time, in milliseconds.
    pub fn open(&mut self, age: u32) {
        if !self.learned.is_empty() && age > self.learned.longest.saturating_add(APART) {
            self.survivors = self.survivors.saturating_add(1);
            if age > self.learned.end() || self.survivors >= SURVIVORS {
                self.forget();
            }
        }
        if age > self.run.ages.longest && !self.run.ages.is_empty() {
            match self.run.ages.with(age) {
                Some(ages) => self.run.ages = ages,
                None => self.run = Run::default(),
            }
        }
    }

    /// The run is a timeout.
    fn learn(&mut self) {
        let timeout = self.run.ages;
        let change = timeout.shortest.abs_diff(self.learned.shortest);
        let was_used = self.was_used && change <= timeout.shortest / CHANGE;
        *self = IdleTimeout { learned: timeout, was_used, ..IdleTimeout::default() };
    }

    fn forget(&mut self) {
        *self = IdleTimeout { run: self.run, ..IdleTimeout::default() };
    }
}
