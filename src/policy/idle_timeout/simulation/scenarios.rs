//! What is simulated.

use super::server::*;
use super::world::Traffic;

/// Clients that come at random, from several times a second to one in two minutes.
fn gaps(clients: usize) -> Vec<Micros> {
    let factor = |client| 400_f64.powf(client as f64 / clients as f64);
    (0..clients).map(|client| (0.3 * factor(client) * SECOND as f64) as Micros).collect()
}

pub fn single() -> Traffic {
    Traffic { gaps: gaps(50), is_periodic: false, burst: 1, is_common: false, slice_limit: 1 }
}

pub fn bursts() -> Traffic {
    Traffic { burst: 4, slice_limit: 4, ..single() }
}

pub fn common() -> Traffic {
    Traffic { is_common: true, burst: 4, slice_limit: 100, ..single() }
}

/// Each client comes so often, exactly.
pub fn periodic(period: Micros, slice_limit: usize) -> Traffic {
    Traffic { gaps: vec![period; 50], is_periodic: true, slice_limit, ..single() }
}

/// One client, which sends a request in a minute.
pub fn sparse() -> Traffic {
    Traffic { gaps: vec![MINUTE], slice_limit: 4, ..single() }
}

pub fn traffics() -> Vec<(&'static str, Traffic)> {
    vec![
        ("1 a slice", single()),
        ("4 a slice", bursts()),
        ("one slice", common()),
        ("every 4 s, 1 a slice", periodic(4 * SECOND, 1)),
        ("every 4 s", periodic(4 * SECOND, 4)),
        ("every 5.03 s", periodic(5030 * MILLISECOND, 4)),
        ("one a minute", sparse()),
    ]
}

fn flaky(mean: Micros) -> Server {
    Server { kill: Some(mean), kill_at_reuse: 0.01, ..Server::default() }
}

pub fn restarting(every: Micros, apart: Micros) -> Server {
    let processes = if apart == 0 { 1 } else { 8 };
    Server { restarts: Some(Restarts { every, processes, apart }), ..Server::default() }
}

pub fn restarting_exact(timeout: Micros, every: Micros, apart: Micros) -> Server {
    Server { restarts: restarting(every, apart).restarts, ..Server::exact(timeout) }
}

/// 5 s, and then 2 s, 10 s and no timeout.
pub fn changing(every: Micros) -> Server {
    let timer = |seconds| Some(Timer::exact(seconds * SECOND));
    let timers = vec![(0, timer(5)), (every, timer(2)), (2 * every, timer(10)), (3 * every, None)];
    Server { timers, ..Server::default() }
}

/// Servers without an idle timeout.
pub fn endless() -> Vec<(&'static str, Server)> {
    vec![
        ("none", Server::default()),
        ("flaky, 3 s", flaky(3 * SECOND)),
        ("flaky, 10 s", flaky(10 * SECOND)),
        ("flaky, 60 s", flaky(MINUTE)),
        ("1 % killed at reuse", Server { kill_at_reuse: 0.01, ..Server::default() }),
        ("restarts every 10 s", restarting(10 * SECOND, 0)),
        ("restarts every minute", restarting(MINUTE, 0)),
        ("restarts every minute, 0.1 s", restarting(MINUTE, SECOND / 10)),
        ("restarts every minute, 1 s", restarting(MINUTE, SECOND)),
    ]
}

pub fn exact() -> Vec<(&'static str, Server)> {
    vec![
        ("1.5 s", Server::exact(1500 * MILLISECOND)),
        ("2 s", Server::exact(2 * SECOND)),
        ("5 s", Server::exact(5 * SECOND)),
        ("65 s", Server::exact(65 * SECOND)),
        ("300 s", Server::exact(300 * SECOND)),
        ("5 s, restarts every minute", restarting_exact(5 * SECOND, MINUTE, 0)),
        ("5 s, restarts, 1 s", restarting_exact(5 * SECOND, MINUTE, SECOND)),
    ]
}

pub fn others() -> Vec<(&'static str, Server)> {
    let silent = |timeout| Server::with(Timer { is_silent: true, ..Timer::exact(timeout) });
    let two = Server { other: Some(Timer::exact(MINUTE)), ..Server::exact(5 * SECOND) };
    vec![
        ("2 s, sweeps every 1 s", Server::sweeper(2 * SECOND, SECOND)),
        ("60 s, sweeps every 30 s", Server::sweeper(MINUTE, 30 * SECOND)),
        ("sheds at 30", Server { limit: Some(30), ..Server::default() }),
        ("middlebox, 20 s", silent(20 * SECOND)),
        ("middlebox, 300 s", silent(300 * SECOND)),
        ("5, 2, 10 s, none", changing(10 * MINUTE)),
        ("5 s and 60 s", two),
        (
            "5, 2, 10 s, none, by restarts",
            Server { restarts: restarting(10 * MINUTE, 0).restarts, ..changing(10 * MINUTE) },
        ),
    ]
}
