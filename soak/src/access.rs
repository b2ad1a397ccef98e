//! nginx's access log: the attempts to send each request to a server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::report::Report;
use crate::upstreams::UPSTREAMS;

/// The log's name.
pub const LOG: &str = "access.log";

/// The log's format.
pub const ATTEMPTS: &str =
    "$proxy_host|$upstream_addr|$upstream_keepalive|$upstream_keepalive_save";

/// The logged attempts of an upstream.
#[derive(Debug, Default)]
pub struct Logged {
    /// Attempts for which nginx names a server.
    pub servers: u64,
    /// Attempts for which it names no server, since it had no connection left to connect with.
    pub unconnected: u64,
    /// The number of `HIT`s and `BORROWED`s that the module logged.
    pub hits: u64,
    /// The number of `BORROWED`s.
    pub borrowed: u64,
    /// The number of `MISS`es.
    pub misses: u64,
    /// The number of `saved`.
    pub saved: u64,
    /// Connections that were not kept, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// The access log.
pub struct AccessLog {
    path: PathBuf,
    read: u64,
    /// The logged attempts, for each upstream.
    pub logged: [Logged; UPSTREAMS.len()],
}

impl AccessLog {
    /// The log in nginx's folder.
    pub fn new(dir: &Path) -> Self {
        AccessLog { path: dir.join(LOG), read: 0, logged: Default::default() }
    }

    /// Reads the new lines.
    pub fn look(&mut self, report: &Report) -> Result<()> {
        let mut log = File::open(&self.path)?;
        log.seek(SeekFrom::Start(self.read))?;
        let mut new = String::new();
        log.read_to_string(&mut new)?;
        let new = &new[..new.rfind('\n').map_or(0, |end| end + 1)];
        self.read += new.len() as u64;
        for line in new.lines() {
            if self.add(line).is_none() {
                report.violation(|| format!("nginx logged of a request: {line}"));
            }
        }
        Ok(())
    }

    /// Empties the log, if everything was read. Call it while no request is under way.
    pub fn clear(&mut self) -> Result<()> {
        let log = File::options().write(true).open(&self.path)?;
        if log.metadata()?.len() == self.read {
            log.set_len(0)?;
            self.read = 0;
        }
        Ok(())
    }

    /// Counts a request; `None` if the line of nginx and the module is impossible.
    fn add(&mut self, line: &str) -> Option<()> {
        let mut fields = line.split('|');
        let (name, servers) = (fields.next()?, fields.next()?);
        let (attempts, save) = (fields.next()?, fields.next()?);
        if servers == "-" {
            // It reached no upstream.
            return (attempts == "-" && save == "-").then_some(());
        }
        let index = UPSTREAMS.iter().position(|upstream| upstream.name == name)?;
        self.logged[index].add(&servers.replace(" : ", ", "), attempts, save)
    }
}

impl Logged {
    fn add(&mut self, servers: &str, attempts: &str, save: &str) -> Option<()> {
        let servers = servers.split(", ");
        let unconnected = servers.clone().filter(|server| server.is_empty()).count() as u64;
        // If there is no server left to try, nginx names the upstream.
        let is_server = |server: &&str| server.parse::<SocketAddr>().is_ok();
        let servers = servers.filter(is_server).count() as u64;
        let count = |word| attempts.split(", ").filter(|attempt| *attempt == word).count() as u64;
        let (borrowed, misses) = (count("BORROWED"), count("MISS"));
        let hits = count("HIT") + borrowed;

        self.servers += servers;
        self.unconnected += unconnected;
        self.hits += hits;
        self.borrowed += borrowed;
        self.misses += misses;
        // The other values are about the last attempt; the attempts before it have failed.
        let last = match save {
            "-" => 0,
            "saved" => {
                self.saved += 1;
                1
            }
            why => {
                *self.refused.entry(why.to_owned()).or_default() += 1;
                1
            }
        };
        let before = (servers + unconnected).checked_sub(last)?;
        *self.refused.entry("failed".to_owned()).or_default() += before;
        (servers == hits + misses).then_some(())
    }
}
