//! How long a server keeps idle connections, learned from the connections that it closes.
//!
//! A server with an idle timeout closes connections at the same age, at different moments. Any other
//! reason to close them looks different: a server that restarts or sheds connections closes those
//! of any age at one moment, and a broken network closes them at any age. So:
//!
//! - Closes that follow one another form a **run**, as long as their ages lie close together; one
//!   that does not belong to it begins another one. A connection that is seen open at a higher age
//!   belongs to the run as well: it makes the range of ages wider. Some that are open, one after the
//!   other, while none is closed, end the run.
//! - A close counts if it is some time after the one that counted last, and at least twice the width
//!   of the range: what happens at one moment happens once.
//! - A run is a timeout once it is [unlikely enough](Ages::are_timeout) that closes at any age lie as
//!   close together: after 3 closes of a server with an exact timer, and up to 12 of one that looks
//!   for idle connections from time to time. There are two runs, a narrow one for the former and a
//!   wide one for the latter. The **timeout** is the shortest age in the run.
//! - The next run takes its place, with a timeout that is shorter or longer. A connection that
//!   lives half as long again as any in the run shows that there is no such timeout any more, and so
//!   do many that live as long as the timeout, one after the other, while none is closed.
//!
//! Nothing is learned from the first second of a connection's idle time.

#![forbid(unsafe_code)]

use super::Time;

/// The shortest time that is learned, and the shortest limit that comes from it, in milliseconds.
const SHORTEST: u32 = 1000;
/// The shortest time between two closes that count, or two survivors, in milliseconds.
const APART: u32 = 100;
/// The width of a narrow and of a wide run are at most the longest age divided by this.
const NARROW: u32 = 20;
const WIDE: u32 = 2;
/// The probability with which a run of closes at any age may be taken for a timeout.
const CHANCE: f64 = 0.01;
/// So many connections that live as long as those of a run, one after the other, end it.
const SURVIVORS_OF_RUN: u8 = 4;
/// So many that live as long as the timeout show that there is none.
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
    fn is_empty(self) -> bool {
        self.longest == 0
    }

    fn width(self) -> u32 {
        self.longest.saturating_sub(self.shortest)
    }

    /// The range with one more age; `None` if it is empty, or would become too wide.
    fn with(self, age: u32, part: u32) -> Option<Self> {
        let ages = Ages { shortest: self.shortest.min(age), longest: self.longest.max(age) };
        (ages.width() <= ages.longest.checked_div(part)?).then_some(ages)
    }

    /// Whether so many closes are a timeout. The probability that `n` ages, each anywhere between 0
    /// and the longest one, lie in a range of this width is at most `n * (width / longest)^(n - 1)`.
    fn are_timeout(self, closes: u8) -> bool {
        let part = f64::from(self.width()) / f64::from(self.longest);
        closes > 2 && f64::from(closes) * part.powi(i32::from(closes).saturating_sub(1)) < CHANCE
    }

    /// A connection that is older shows that these are not the ages of a timeout.
    fn end(self) -> u32 {
        self.longest.saturating_add(self.longest / 2)
    }
}

/// A number of events, of which those at one moment count once.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    number: u8,
    /// When the last one was that counts.
    last: Time,
}

impl Count {
    /// An event, which counts if it is this long after the one that counted last.
    fn add(&mut self, now: Time, apart: u32) {
        // A clock of 32 bits wraps around.
        if self.number == 0 || now < self.last || now.saturating_sub(self.last) >= apart.into() {
            self.number = self.number.saturating_add(1);
            self.last = now;
        }
    }
}

/// Closes, one after the other, at about the same age. The default is none.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    ages: Ages,
    closes: Count,
    /// Connections that have lived as long since the last one was closed.
    survivors: Count,
}

impl Run {
    /// A connection was closed; the ages of the run if they are a timeout.
    fn closed(&mut self, age: u32, now: Time, part: u32) -> Option<Ages> {
        match self.ages.with(age, part) {
            Some(ages) => self.ages = ages,
            None => *self = Run { ages: Ages { shortest: age, longest: age }, ..Run::default() },
        }
        self.survivors = Count::default();
        self.closes.add(now, self.ages.width().saturating_mul(2).max(APART));
        self.ages.are_timeout(self.closes.number).then_some(self.ages)
    }

    /// A connection is open.
    fn open(&mut self, age: u32, now: Time, part: u32) {
        if age < self.ages.shortest || self.ages.is_empty() {
            return;
        }
        match self.ages.with(age, part) {
            Some(ages) => self.ages = ages,
            None => *self = Run::default(),
        }
        self.survivors.add(now, APART);
        if self.survivors.number >= SURVIVORS_OF_RUN {
            *self = Run::default();
        }
    }
}

/// What is known of a server's idle timeout. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdleTimeout {
    /// The run from which the timeout was learned; empty if there is none.
    learned: Ages,
    /// Connections that have lived as long since the last one was closed.
    survivors: Count,
    /// Whether [`Self::first_use`] has answered with it.
    was_used: bool,
    narrow: Run,
    wide: Run,
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

    /// The timeout, if it is used for the first time, at about this length.
    pub fn first_use(&mut self) -> Option<u32> {
        self.get().filter(|_| !core::mem::replace(&mut self.was_used, true))
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
            self.survivors = Count::default();
        }
        let narrow = self.narrow.closed(age, now, NARROW);
        let wide = self.wide.closed(age, now, WIDE);
        if let Some(ages) = narrow.or(wide) {
            self.learn(ages);
        }
    }

    /// A connection is open that has been idle for this time, in milliseconds.
    pub fn open(&mut self, age: u32, now: Time) {
        if !self.learned.is_empty() && age >= self.learned.shortest {
            self.survivors.add(now, APART);
            if age > self.learned.end() || self.survivors.number >= SURVIVORS {
                self.forget();
            }
        }
        self.narrow.open(age, now, NARROW);
        self.wide.open(age, now, WIDE);
    }

    /// These are the ages of a timeout.
    fn learn(&mut self, ages: Ages) {
        let change = ages.shortest.abs_diff(self.learned.shortest);
        let was_used = self.was_used && change <= ages.shortest / CHANGE;
        *self = IdleTimeout { learned: ages, was_used, ..IdleTimeout::default() };
    }

    fn forget(&mut self) {
        *self = IdleTimeout { narrow: self.narrow, wide: self.wide, ..IdleTimeout::default() };
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod simulation;
#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests;
