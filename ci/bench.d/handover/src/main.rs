//! Measures ways to hand an idle connection from one worker process to another, which decides how
//! `shared` works. It needs no nginx; `ci/bench handover` runs it.
//!
//! | file        | content                                                     |
//! |-------------|-------------------------------------------------------------|
//! | `system`    | system calls, counted                                       |
//! | `shared`    | the memory that all processes share, and its lock           |
//! | `processes` | the server, the holder, and the channels between processes  |
//! | `table`     | the figures                                                 |
//! | `taker`     | the ways, and their measurements                            |
//! | `refusals`  | what happens when the system refuses                        |

mod processes;
mod refusals;
mod shared;
mod system;
mod table;
mod taker;

use std::env;
use std::io::Result;
use std::process::ExitCode;

use processes::{Channels, Holder, serve};
use shared::Shared;
use taker::Taker;

const USAGE: &str = "usage: handover [--rounds NUMBER] [--busy-rounds NUMBER] [--help]";

const HELP: &str = "
Measures three ways to take an idle connection of another process:
  A  it lies in flight in a socket pair
  B  the holder is asked by its mailbox, and sends it
  C  the connection is claimed in shared memory, and taken with pidfd_getfd(2)

  --rounds NUMBER       of each way with a holder that waits for events (default 1000)
  --busy-rounds NUMBER  with a holder that runs 20 ms between looks at events (default 50)

Prints a table of medians in microseconds, and one of what happens when the system refuses.
Numbers are from 1 to 10000. It is stopped after a minute.";

const NOTES: &str = "\
System calls are counted where the program makes them; clocks are not counted. The holder's part ends
when it has closed its descriptor and waits again: in way C, that includes the end of the connection.
The local hit of way A is one on a connection that this process put in flight itself, just before.";

/// How many rounds there are.
struct Rounds {
    idle: u32,
    busy: u32,
}

/// The arguments; nothing, if help is asked for.
fn arguments(mut arguments: impl Iterator<Item = String>) -> Option<Option<Rounds>> {
    let mut rounds = Rounds { idle: 1000, busy: 50 };
    while let Some(argument) = arguments.next() {
        let number = match argument.as_str() {
            "--help" => return Some(None),
            "--rounds" => &mut rounds.idle,
            "--busy-rounds" => &mut rounds.busy,
            _ => return None,
        };
        *number = arguments.next()?.parse().ok().filter(|number| (1..=10_000).contains(number))?;
    }
    Some(Some(rounds))
}

fn run(rounds: &Rounds) -> Result<()> {
    system::end_after(60);
    // SAFETY: it consists of atomic integers.
    let shared: &Shared = unsafe { system::shared_memory()? };
    let channels = Channels::new()?;
    let (listener, port) = system::listen()?;
    let _server = system::fork(|| serve(&listener, shared))?;
    let holder = system::fork(|| Holder::run(&channels, shared, port))?;
    let taker = Taker::new(&channels, shared, port, holder.0)?;
    println!("{}\n{NOTES}\n", taker.measure(rounds.idle, rounds.busy)?);
    refusals::print()
}

fn main() -> ExitCode {
    match arguments(env::args().skip(1)) {
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        Some(None) => {
            println!("{USAGE}\n{HELP}");
            ExitCode::SUCCESS
        }
        Some(Some(rounds)) => match run(&rounds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("handover: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
