//! Proves the module's promises under fire: nginx with the module between clients and backends that
//! make all kinds of errors, while it is reloaded and its workers are killed.
//!
//! Every request has a number. Backends record their faults in the [`ledger`]; a client's failure
//! without an explanation there is a broken promise, and so is each request that reaches a backend
//! on a connection of another key, location, protocol or server.
//!
//! Each file uses only files above it:
//!
//! | file         | content                                                |
//! |--------------|--------------------------------------------------------|
//! | `upstreams`  | the upstreams and locations; identities of connections |
//! | `wire`       | HTTP/1.1                                               |
//! | `faults`     | the faults of backends                                 |
//! | `report`     | the figures                                            |
//! | `ledger`     | events, and the failures that they explain             |
//! | `context`    | data that clients, backends and checks share           |
//! | `request`    | requests, as backends see them                         |
//! | `answer`     | the answers of backends                                |
//! | `connection` | backends' connections, which check their identity      |
//! | `backend`    | the servers                                            |
//! | `exchange`   | requests and answers, as clients see them              |
//! | `load`       | the clients                                            |
//! | `process`    | `/proc`                                                |
//! | `status`     | the counters of `keepalive_status`                     |
//! | `access`     | nginx's access log                                     |
//! | `nginx`      | nginx's configuration and signals                      |
//! | `samples`    | the limits over all workers, under load                |
//! | `checks`     | checks of sockets, memory and logs from outside        |
//! | `accounts`   | the module's counters, compared with other sources     |
//! | `storm`      | reloads, kills, shortages, pauses                      |

mod access;
mod accounts;
mod answer;
mod backend;
mod checks;
mod connection;
mod context;
mod exchange;
mod faults;
mod ledger;
mod load;
mod nginx;
mod process;
mod report;
mod request;
mod samples;
mod status;
mod storm;
mod upstreams;
mod wire;

use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{interval, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::checks::Logs;
use crate::context::Context;
use crate::faults::Failure;
use crate::ledger::Case;
use crate::load::{CLIENTS, Client, Gate};
use crate::nginx::{Nginx, Paths};
use crate::report::Report;
use crate::storm::Storm;
use crate::upstreams::{Server, UPSTREAMS};

/// The time from a failure to its judgement: by then everything about it is recorded.
const JUDGED: Duration = Duration::from_secs(1);

/// The interval of the checks whether this program gets to run, and the tolerated delay.
const TICK: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(200);

/// The time from one line of progress to the next.
const PROGRESS: Duration = Duration::from_secs(5);

struct Arguments {
    paths: Paths,
    port: u16,
    time: Duration,
}

fn arguments() -> Option<Arguments> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [nginx, module, dir, port, seconds] = &arguments[..] else { return None };
    Some(Arguments {
        paths: Paths { nginx: nginx.into(), module: module.into(), dir: dir.into() },
        port: port.parse().ok()?,
        time: Duration::from_secs(seconds.parse().ok()?),
    })
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: soak NGINX MODULE DIR PORT SECONDS");
        return ExitCode::from(2);
    };
    let context = Arc::new(Context::new());
    if let Err(error) = soak(&context, arguments).await {
        context.report.failed(&error.to_string());
    }
    println!("soak: {}", context.report.figures());
    if context.report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn soak(context: &Arc<Context>, arguments: Arguments) -> Result<()> {
    let Arguments { paths, port, time } = arguments;
    let dir = paths.dir.clone();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let servers = backends(context).await?;
    let mut nginx = Nginx::start(paths, listen, servers).await?;

    let gate = Arc::new(Gate::default());
    let (failures, failed) = unbounded_channel();
    for _ in 0..CLIENTS {
        let (context, gate) = (context.clone(), gate.clone());
        tokio::spawn(Client::new(context, gate, listen, failures.clone()).run());
    }
    let judge = tokio::spawn(judge(context.clone(), failed, dir.clone()));
    tokio::spawn(watch(context.clone()));
    tokio::spawn(samples::take(context.clone(), gate.clone()));
    tokio::spawn(progress(context.clone()));

    let mut storm = Storm::new(context.clone(), gate, &dir);
    let mut terminated = signal(SignalKind::terminate())?;
    let done = tokio::select! {
        done = storm.run(&nginx, time) => done,
        _ = terminated.recv() => Err(Error::other("terminated")),
    };
    let done = match done {
        Ok(()) => storm.end(&mut nginx).await,
        error => error,
    };
    if done.is_err() {
        // Failures from now on have no meaning.
        judge.abort();
        nginx.terminate().await;
    }
    sleep(2 * JUDGED).await;
    done?;
    check_use(&context.report)
}

/// A soak without load proves nothing.
fn check_use(report: &Report) -> Result<()> {
    let Report { requests, hits, idle, faults, reloads, .. } = report;
    let Report { borrowed, kept_over_reload, samples, .. } = report;
    let counters = [requests, hits, idle, faults, reloads, borrowed, kept_over_reload, samples];
    if counters.iter().any(|counter| counter.get() == 0) {
        return Err(Error::other("nothing was shown"));
    }
    Ok(())
}

/// Starts the servers of all upstreams.
async fn backends(context: &Arc<Context>) -> Result<Vec<Server>> {
    let tls = tls().map_err(Error::other)?;
    let mut servers = vec![];
    for (index, upstream) in UPSTREAMS.iter().enumerate() {
        for number in 0..upstream.servers {
            let listener = TcpListener::bind((upstreams::address(index, number), 0)).await?;
            let server = Server { upstream: index, address: listener.local_addr()? };
            tokio::spawn(backend::serve(context.clone(), server, listener, tls.clone()));
            servers.push(server);
        }
    }
    Ok(servers)
}

fn tls() -> std::result::Result<TlsAcceptor, Box<dyn std::error::Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed(["soak".to_owned()])?;
    let key = made.signing_key.serialize_der().try_into()?;
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.into()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Judges each failure, some time after it.
async fn judge(context: Arc<Context>, mut failed: UnboundedReceiver<Case>, dir: PathBuf) {
    while let Some(case) = failed.recv().await {
        sleep((case.end + JUDGED).saturating_duration_since(Instant::now())).await;
        let about = || format!("{case:?}{}", Logs::about(&dir, case.id));
        if case.failure == Failure::Stray {
            let what = "a client got what came late, or after an answer to another request";
            context.report.violation(|| format!("{what}: {}", about()));
        } else if context.ledger.explains(&case) {
            context.report.explained.add();
        } else {
            context.report.unexplained(about);
        }
    }
}

/// Notices when this program, which includes the backends, does not get to run.
async fn watch(context: Arc<Context>) {
    loop {
        let begin = Instant::now();
        sleep(TICK).await;
        let late = begin.elapsed().saturating_sub(TICK);
        if late > LATE {
            context.report.lags.add();
            context.ledger.lag(begin, Instant::now());
        }
    }
}

async fn progress(context: Arc<Context>) {
    let mut interval = interval(PROGRESS);
    loop {
        interval.tick().await;
        eprintln!("soak: {}", context.report.progress());
    }
}
