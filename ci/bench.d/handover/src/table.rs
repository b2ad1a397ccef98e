//! The figures of all rounds, as a table.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result};

use crate::processes::Way;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// The time of parking.
    Parking,
    /// The time of taking an own idle connection.
    LocalHit,
    /// The time of taking another's.
    Hit,
    /// CPU time of that, the taker's.
    TakerCpu,
    /// The holder's, until it has forgotten the connection and waits again.
    HolderCpu,
    /// Both.
    Cpu,
    /// System calls of it.
    TakerCalls,
    /// The holder's.
    HolderCalls,
    /// Whether the holder did not notice the response.
    Unnoticed,
    /// The time of taking another's, without a pause before.
    WarmHit,
    /// The time of taking a connection from a holder that runs 20 ms between looks at events.
    BusyHit,
    /// Whether such a holder did not notice the response.
    BusyUnnoticed,
    /// The time until the server sees the end of an evicted connection.
    Eviction,
    /// The same, with a holder that runs 20 ms.
    BusyEviction,
}

impl Row {
    const ALL: [(Self, &str); 14] = [
        (Self::Parking, "parking"),
        (Self::LocalHit, "local hit"),
        (Self::Hit, "borrowed hit"),
        (Self::TakerCpu, "CPU time of it, taker"),
        (Self::HolderCpu, "CPU time of it, holder"),
        (Self::Cpu, "CPU time of it, together"),
        (Self::TakerCalls, "system calls of it, taker"),
        (Self::HolderCalls, "system calls of it, holder"),
        (Self::Unnoticed, "responses that the holder does not notice"),
        (Self::WarmHit, "borrowed hit, without a pause before"),
        (Self::BusyHit, "borrowed hit, busy holder"),
        (Self::BusyUnnoticed, "responses that a busy holder does not notice"),
        (Self::Eviction, "eviction, until the server sees it"),
        (Self::BusyEviction, "eviction, busy holder"),
    ];

    /// The form of its figures.
    fn format(self, sorted: &[f64]) -> String {
        let (median, maximum) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        match self {
            Self::TakerCalls | Self::HolderCalls => format!("{median:.0}"),
            Self::Unnoticed | Self::BusyUnnoticed => {
                format!("{:.0} of {}", sorted.iter().sum::<f64>(), sorted.len())
            }
            Self::Hit | Self::WarmHit | Self::BusyHit | Self::Eviction | Self::BusyEviction => {
                format!("{median:.1} ({maximum:.0})")
            }
            _ => format!("{median:.2}"),
        }
    }
}

/// How it is done.
#[derive(Clone, Copy, PartialEq)]
pub enum Column {
    /// One of the three ways.
    Way(Way),
    /// A new connection, until it can be written to.
    Connect,
    /// A new connection, all of it in one process.
    ConnectAcceptClose,
}

impl Column {
    const ALL: [(Self, &str); 5] = [
        (Self::Way(Way::Flight), "A: in flight"),
        (Self::Way(Way::Mailbox), "B: mailbox"),
        (Self::Way(Way::Getfd), "C: pidfd_getfd"),
        (Self::Connect, "connect"),
        (Self::ConnectAcceptClose, "connect, accept, close"),
    ];

    fn index(self) -> usize {
        Self::ALL.iter().position(|(column, _)| *column == self).unwrap_or_default()
    }
}

/// The figures of all rounds.
#[derive(Default)]
pub struct Table(BTreeMap<(Row, usize), Vec<f64>>);

impl Table {
    /// Adds a figure.
    pub fn add(&mut self, row: Row, column: Column, figure: f64) {
        self.0.entry((row, column.index())).or_default().push(figure);
    }

    /// Adds a time, of nanoseconds.
    pub fn add_time(&mut self, row: Row, column: Column, nanoseconds: u64) {
        self.add(row, column, nanoseconds as f64 / 1000.0);
    }

    fn cell(&self, row: Row, column: Column) -> String {
        let Some(figures) = self.0.get(&(row, column.index())) else { return "–".into() };
        let mut sorted = figures.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        row.format(&sorted)
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "| us, median (maximum) |")?;
        for (_, name) in Column::ALL {
            write!(f, " {name} |")?;
        }
        writeln!(f, "\n|---|---:|---:|---:|---:|---:|")?;
        for (row, name) in Row::ALL {
            write!(f, "| {name} |")?;
            for (column, _) in Column::ALL {
                write!(f, " {} |", self.cell(row, column))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
