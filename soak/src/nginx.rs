//! nginx: its configuration, its start, its signals, its end.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::access::{ATTEMPTS, LOG};
use crate::ledger::Ledger;
use crate::load::CLIENTS;
use crate::process;
use crate::status;
use crate::upstreams::{BUFFER, LOCATIONS, MAPS, Server, UPSTREAMS};

/// The number of workers.
pub const WORKERS: usize = 4;

/// `worker_connections`, usually.
const CONNECTIONS: usize = 4096;

/// `worker_connections` in a shortage: one worker could carry all clients, but would have to close
/// idle connections for it.
const FEW_CONNECTIONS: usize = 2 * CLIENTS + 32;

/// The time that nginx may need for a command.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of attempts to stop a worker without a lock.
const TRIES: usize = 20;

/// The number of attempts to stop a worker in an operation on shared connections, and the time from
/// one to the next.
const TRIES_IN_OPERATION: usize = 60;
const BETWEEN: Duration = Duration::from_millis(1);

/// The paths of everything.
pub struct Paths {
    /// The binary.
    pub nginx: PathBuf,
    /// The module.
    pub module: PathBuf,
    /// A folder for everything else.
    pub dir: PathBuf,
}

/// A worker that was killed.
pub struct Killed {
    /// Its process.
    pub worker: u32,
    /// The connections that clients had with it.
    pub clients: usize,
    /// The connections to each upstream that it had in use; `None` if nobody could know.
    pub in_use: Option<Vec<i64>>,
}

/// A running nginx.
pub struct Nginx {
    paths: Paths,
    /// The address on which it listens.
    pub listen: SocketAddr,
    servers: Vec<Server>,
    master: Child,
    /// Its process.
    pub pid: u32,
}

impl Nginx {
    /// Starts nginx, and waits until it has workers.
    pub async fn start(paths: Paths, listen: SocketAddr, servers: Vec<Server>) -> Result<Self> {
        let conf = paths.dir.join("nginx.conf");
        fs::write(&conf, configuration(&paths, listen, &servers, false))?;
        // It must not outlive this program.
        let master = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(&paths.nginx)
            .arg("-p")
            .arg(&paths.dir)
            .arg("-e")
            .arg(paths.dir.join("error.log"))
            .arg("-c")
            .arg(conf)
            .spawn()?;
        let pid = master.id().ok_or_else(|| Error::other("nginx has ended"))?;
        let nginx = Nginx { paths, listen, servers, master, pid };
        nginx.wait_for(|nginx| nginx.workers().len() == WORKERS).await?;
        Ok(nginx)
    }

    /// The workers that do not quit.
    pub fn workers(&self) -> Vec<u32> {
        let works = |&child: &u32| process::title(child) == "nginx: worker process";
        process::children(self.pid).into_iter().filter(works).collect()
    }

    /// Reloads the configuration; the new workers may have few connections.
    pub async fn reload(&self, ledger: &Ledger, few: bool) -> Result<()> {
        let conf = configuration(&self.paths, self.listen, &self.servers, few);
        fs::write(self.paths.dir.join("nginx.conf"), conf)?;
        let old = self.workers();
        ledger.quit(&old);
        if few {
            ledger.shortage(true);
        }
        signal(self.pid, Signal::HUP)?;
        self.wait_for(|nginx| {
            let workers = nginx.workers();
            workers.len() == WORKERS && workers.iter().all(|worker| !old.contains(worker))
        })
        .await?;
        if !few {
            ledger.shortage(false);
        }
        Ok(())
    }

    /// Kills a worker, and waits for the next one. Its connections are known exactly, since it is
    /// stopped before. The idle ones must count as closed then.
    pub async fn kill(&self, ledger: &Ledger, which: usize) -> Result<Killed> {
        let worker = self.stop_unlocked(ledger, which).await?;
        self.kill_stopped(ledger, worker, true).await
    }

    /// Kills a worker in the middle of an operation on connections that it shares with the others,
    /// and waits for the next one. `None` if it was never there when it was stopped. Call it while
    /// nobody uses nginx's cache, which it could have locked otherwise.
    pub async fn kill_in_operation(&self, ledger: &Ledger, which: usize) -> Result<Option<Killed>> {
        for _ in 0..TRIES_IN_OPERATION {
            let worker = self.stop(ledger, which).await?;
            if !status::is_told(self.listen).await {
                return self.kill_stopped(ledger, worker, false).await.map(Some);
            }
            signal(worker, Signal::CONT)?;
            ledger.freeze(false);
            sleep(BETWEEN).await;
        }
        Ok(None)
    }

    /// Kills a stopped worker. With `tells`, nginx tells its status meanwhile.
    async fn kill_stopped(&self, ledger: &Ledger, worker: u32, tells: bool) -> Result<Killed> {
        let sockets = process::sockets(&[worker]).remove(&worker).unwrap_or_default();
        let before = if tells { Some(status::read(self.listen).await?) } else { None };
        let ports = sockets.iter().filter(|socket| socket.local == self.listen);
        let ports: HashSet<u16> = ports.map(|socket| socket.remote.port()).collect();
        let clients = ports.len();
        ledger.kill(ports);
        signal(worker, Signal::KILL)?;
        ledger.freeze(false);
        let replaced = |workers: Vec<u32>| workers.len() == WORKERS && !workers.contains(&worker);
        self.wait_for(|nginx| replaced(nginx.workers())).await?;

        let Some(before) = before else { return Ok(Killed { worker, clients, in_use: None }) };
        let after = status::read(self.listen).await?;
        let idle = before.iter().zip(&after).map(|(before, after)| after.shut() - before.shut());
        let open = process::to_upstreams(&sockets).into_iter().zip(idle);
        let in_use = Some(open.map(|(open, idle)| open as i64 - idle).collect());
        Ok(Killed { worker, clients, in_use })
    }

    /// Lets a worker miss some time, as if its clock had jumped.
    pub async fn freeze(&self, ledger: &Ledger, which: usize, time: Duration) -> Result<()> {
        let worker = self.stop(ledger, which).await?;
        sleep(time).await;
        signal(worker, Signal::CONT)?;
        ledger.freeze(false);
        Ok(())
    }

    /// Stops a worker at a moment when it has not locked nginx's cache, which cannot survive that.
    async fn stop_unlocked(&self, ledger: &Ledger, which: usize) -> Result<u32> {
        for _ in 0..TRIES {
            let worker = self.stop(ledger, which).await?;
            // The first question is the fast one.
            if status::is_told(self.listen).await && status::can_use_cache(self.listen).await {
                return Ok(worker);
            }
            signal(worker, Signal::CONT)?;
            ledger.freeze(false);
        }
        Err(Error::other("nginx's cache was always locked"))
    }

    async fn stop(&self, ledger: &Ledger, which: usize) -> Result<u32> {
        let workers = self.workers();
        let worker = *workers.get(which % WORKERS).ok_or_else(|| Error::other("no worker"))?;
        ledger.freeze(true);
        signal(worker, Signal::STOP)?;
        self.wait_for(|_| process::is_stopped(worker)).await?;
        Ok(worker)
    }

    /// Makes nginx quit, and waits for it.
    pub async fn quit(&mut self) -> Result<ExitStatus> {
        signal(self.pid, Signal::QUIT)?;
        match timeout(PATIENCE, self.master.wait()).await {
            Ok(status) => status,
            Err(_) => Err(Error::other("nginx did not quit")),
        }
    }

    /// Ends nginx at once.
    pub async fn terminate(&mut self) {
        let _ = signal(self.pid, Signal::TERM);
        if timeout(PATIENCE, self.master.wait()).await.is_err() {
            for process in process::children(self.pid) {
                let _ = signal(process, Signal::KILL);
            }
            let _ = self.master.kill().await;
        }
    }

    async fn wait_for(&self, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !condition(self) {
            if Instant::now() > end {
                return Err(Error::other("nginx did not do what it was told"));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

fn signal(process: u32, signal: Signal) -> Result<()> {
    let process = process.try_into().ok().and_then(Pid::from_raw);
    kill_process(process.ok_or_else(|| Error::other("no process"))?, signal)?;
    Ok(())
}

/// The text of nginx.conf. Messages worse than an error have a log of their own, which is small.
fn configuration(paths: &Paths, listen: SocketAddr, servers: &[Server], few: bool) -> String {
    let connections = if few { FEW_CONNECTIONS } else { CONNECTIONS };
    let user = if rustix::process::getuid().is_root() { "user nobody nogroup;" } else { "" };
    let mut text = format!(
        "load_module {module};
daemon off;
{user}
pid nginx.pid;
worker_processes {WORKERS};
error_log error.log warn;
error_log grave.log crit;

events {{
    worker_connections {connections};
}}

http {{
    log_format attempts '{ATTEMPTS}';
    access_log {LOG} attempts;
    proxy_http_version 1.1;
    proxy_read_timeout 2s;
    proxy_buffer_size {BUFFER};
    proxy_ssl_server_name on;
    proxy_ssl_name $host;
    client_body_buffer_size 256k;
    proxy_cache_path cache keys_zone=soak:4m levels=1:2 inactive=10s max_size=64m
                     use_temp_path=off;
    proxy_cache_key $minute$request_method$proxy_host$uri$host;
    proxy_cache_valid 200 204 1s;
    log_subrequest on;
{MAPS}",
        module = paths.module.display(),
    );
    upstreams(&mut text, servers, few);
    let _ = write!(text, "\n    server {{\n        listen {listen} backlog=4096;\n");
    let _ = writeln!(
        text,
        "
        location = {path} {{
            keepalive_status json;
            access_log off;
        }}

        location = {through_cache} {{
            proxy_cache soak;
            proxy_pass http://{listen}{path};
            access_log off;
        }}",
        path = status::PATH,
        through_cache = status::THROUGH_CACHE,
    );
    locations(&mut text);
    text + "    }\n}\n"
}

fn upstreams(text: &mut String, servers: &[Server], low: bool) {
    for (index, upstream) in UPSTREAMS.iter().enumerate() {
        let _ = writeln!(text, "    upstream {} {{", upstream.name);
        for server in servers.iter().filter(|server| server.upstream == index) {
            let _ = writeln!(text, "        server {} max_fails=0;", server.address);
        }
        let _ = writeln!(text, "        keepalive {};", upstream.keepalive(low));
        let _ = writeln!(text, "        keepalive_hints on margin=100ms learn;");
        let _ = writeln!(text, "        keepalive_timeout {};\n    }}", upstream.timeout);
    }
}

fn locations(text: &mut String) {
    for (index, location) in LOCATIONS.iter().enumerate() {
        let upstream = &UPSTREAMS[location.upstream];
        let cache = location.cache.map(|rest| format!("proxy_cache soak;\n            {rest}"));
        let _ = writeln!(
            text,
            "
        location = {path} {{
            proxy_pass {scheme}://{name};
            proxy_set_header Host $host;
            proxy_set_header Connection keep-alive;
            proxy_set_header X-Slice {key};
            proxy_set_header X-Location {index};
            proxy_set_header X-Worker $pid;
            {cache}
            add_header X-Cache $upstream_cache_status always;
            add_header X-Upstream $upstream_addr always;
            add_header X-Worker $pid always;
        }}",
            path = location.path,
            scheme = location.scheme,
            name = upstream.name,
            key = if upstream.key.is_empty() { "''" } else { upstream.key },
            cache = cache.unwrap_or_default(),
        );
    }
}
