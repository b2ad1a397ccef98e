//! The live upstream of a worker: its settings, its pool of slots, the connections parked in them,
//! its counters, and the original `peer.init`.
//!
//! It owns every change of state: a connection is taken, kept or removed for a reason, and the
//! pool, the table of connections and the counters change together. No code outside of this room
//! can name them.
//!
//! The rule of borrowing: state is borrowed by [`Upstream::with`], for one operation that calls no
//! function of nginx. nginx may call back into this module,
//! above all while it closes a connection; so a connection that has left is returned as
//! [`Removed`], and closed or used afterwards.

use core::cell::{Cell, OnceCell, UnsafeCell};
use core::ffi::c_void;
use core::ptr::NonNull;
use std::os::fd::OwnedFd;

use nginx_sys::{
    ngx_http_upstream_init_peer_pt, ngx_http_upstream_init_pt, ngx_http_upstream_main_conf_t,
    ngx_http_upstream_srv_conf_t, ngx_str_t,
};
use ngx::core::{NgxStr, Pool as Memory};
use ngx::http::HttpModuleConfExt;
use rustix::io::Errno;

pub use self::answer::{Copies, Keep, Removed, Taken};
pub use self::fetch::Moved;
pub use self::parked::Parked;
use self::parked::Table;
use self::server::Server;
#[cfg(ngx_feature = "http_ssl")]
use self::sessions::Sessions;
use self::shared::SharedCache;
use crate::attributes::Variety;
use crate::conf::{Directives, Settings};
use crate::counters::{Closed, Pid, Refused, Totals};
use crate::learned::Learned;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::tls::TlsSession;
use crate::nginx::{self, Connection};
use crate::policy::idle_timeouts::Verdict;
use crate::policy::{self, IdleLimit, Time};
use crate::pool::{Identity, Length, Lookup, Pool, Put, Seed, SlotIndex, UsedSlice};
use crate::shared::{Idle, Ticket};
use crate::zone::{self, CounterZone};

mod answer;
mod fetch;
pub(crate) mod own;
mod parked;
mod server;
#[cfg(ngx_feature = "http_ssl")]
mod sessions;
mod shared;

/// The module's configuration of an upstream, as nginx holds it: its directives, and the live
/// upstream.
#[derive(Default)]
pub struct ServerConf {
    pub(crate) directives: Directives,
    /// `None` without `keepalive`, and until the upstream is set up.
    pub(crate) live: Option<NonNull<Upstream>>,
    /// The original `peer.init_upstream`; only for an upstream that is created at run time.
    pub(crate) original_init_upstream: ngx_http_upstream_init_pt,
}

impl ServerConf {
    /// The module's configuration of an upstream; `None` for an implicit one, made by `proxy_pass`.
    pub fn of(upstream: &ngx_http_upstream_srv_conf_t) -> Option<NonNull<Self>> {
        // SAFETY: the module has configurations of this type for upstreams.
        unsafe { upstream.http_server_conf_unchecked(nginx::this_module()) }
    }
}

/// The live upstreams of a configuration.
pub fn all(conf: &ngx_http_upstream_main_conf_t) -> impl Iterator<Item = &Upstream> {
    // SAFETY: the array holds pointers to upstreams, which live as long as the configuration.
    nginx::upstreams(conf).iter().filter_map(|&upstream| Upstream::of(unsafe { &*upstream }))
}

/// An upstream that has a `keepalive`, in this worker.
pub struct Upstream {
    settings: Settings,
    name: ngx_str_t,
    /// The original `peer.init`.
    original_init_peer: ngx_http_upstream_init_peer_pt,
    longest_attributes: Length,
    state: UnsafeCell<State>,
    /// What is known about the idle timeouts of servers.
    learned: OnceCell<Learned>,
    /// Whether this worker has logged that a slice key was cut.
    cut_logged: Cell<bool>,
    /// Whether this worker has logged that a server's address is too long.
    address_logged: Cell<bool>,
    /// Whether this worker has logged that connections of others cannot be used.
    refusal_logged: Cell<bool>,
}

struct State {
    pool: Pool<Memory>,
    parked: Table,
    counters: CounterZone,
    /// The cache that is used instead of `pool`, if the workers share their connections.
    shared: Option<SharedCache>,
    /// The TLS sessions; `None` if the balancer may have them, since all connections are alike.
    #[cfg(ngx_feature = "http_ssl")]
    sessions: Option<Sessions>,
}

impl State {
    fn closed(&mut self, slot: SlotIndex, why: Closed) -> Option<Removed> {
        let counters = self.counters.block();
        counters.closed(why);
        counters.set_slices(self.pool.slices_in_use());
        self.parked.get(slot).map(Removed::own)
    }

    /// The time for which the connection of the same identity that was saved first has been idle, if
    /// that one is open.
    fn oldest(&self, slot: SlotIndex, now: Time) -> Option<u32> {
        let oldest = self.parked.get(self.pool.oldest(slot)?)?;
        oldest.as_connection().is_quiet().then(|| oldest.idle(now))
    }

    /// The shared cache, if there is one, with the table and the counters.
    #[inline(always)]
    fn shared(&mut self) -> Option<(&mut SharedCache, shared::Local<'_>)> {
        let shared = self.shared.as_mut()?;
        Some((shared, (&mut self.parked, self.counters.block())))
    }
}

/// The upstream in which a connection is parked, and its slot.
///
/// # Safety
///
/// `place` is the answer of [`Upstream::keep`] for a connection that is still parked.
pub unsafe fn find_parked<'a>(place: *mut c_void) -> (&'a Upstream, SlotIndex) {
    let place: *const Parked = place.cast();
    // SAFETY: the table is in the memory of the configuration, and so is the upstream, which lives
    // as long as anything is parked in it.
    let upstream = unsafe { (*place).upstream.cast::<Upstream>().as_ref() };
    (upstream, upstream.with(|state| state.parked.slot(place)))
}

impl Upstream {
    /// An upstream without idle connections, for server addresses of this length; all the memory
    /// that it will ever use is reserved here. `None` if there is not enough.
    pub fn new_in(
        upstream: &ngx_http_upstream_srv_conf_t,
        settings: Settings,
        (address_length, variety, seed): (Length, Variety, &Seed),
        counters: CounterZone,
        memory: Memory,
    ) -> Option<Self> {
        let longest = variety.longest(settings.ntlm);
        let limits = settings.keepalive.limits(address_length, longest);
        let slots = if settings.keepalive.shared { zone::reserved(limits) } else { limits };
        let parked = Table::new_in(slots.connections, memory.clone()).ok()?;
        let pool = Pool::new_in(limits, seed, memory.clone()).ok()?;
        #[cfg(ngx_feature = "http_ssl")]
        let sessions = if variety.tls != 0 && (variety.is_any() || settings.divides()) {
            Some(Sessions::new_in(limits, seed, memory).ok()?)
        } else {
            None
        };
        let state = State {
            pool,
            parked,
            counters,
            shared: None,
            #[cfg(ngx_feature = "http_ssl")]
            sessions,
        };
        Some(Upstream {
            settings,
            name: upstream.host,
            original_init_peer: upstream.peer.init,
            longest_attributes: longest,
            state: UnsafeCell::new(state),
            learned: OnceCell::new(),
            cut_logged: Cell::new(false),
            address_logged: Cell::new(false),
            refusal_logged: Cell::new(false),
        })
    }

    /// The live upstream of nginx's upstream.
    pub fn of(upstream: &ngx_http_upstream_srv_conf_t) -> Option<&Self> {
        let conf = ServerConf::of(upstream)?;
        // SAFETY: both live as long as nginx's upstream, and what is running is only changed by
        // shared references.
        unsafe { conf.as_ref().live.map(|live| live.as_ref()) }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its name.
    pub fn name(&self) -> &NgxStr {
        // SAFETY: the name lives as long as the upstream.
        unsafe { NgxStr::from_ngx_str(self.name) }
    }

    /// The original `peer.init`.
    pub fn original_init_peer(&self) -> ngx_http_upstream_init_peer_pt {
        self.original_init_peer
    }

    /// The length of the longest attributes for which there is room, in bytes.
    pub fn longest_attributes(&self) -> Length {
        self.longest_attributes
    }

    /// Whether this is the first slice key that is cut in this worker.
    pub fn is_first_cut(&self) -> bool {
        !self.cut_logged.replace(true)
    }

    /// Whether this is the first server address that is too long in this worker.
    pub fn is_first_long_address(&self) -> bool {
        !self.address_logged.replace(true)
    }

    /// Borrows the state, for one operation that calls no function of nginx.
    #[inline(always)]
    fn with<R>(&self, operation: impl FnOnce(&mut State) -> R) -> R {
        // SAFETY: a worker has one thread, and no operation, all of which are written in this room,
        // gets here again before it is done.
        operation(unsafe { &mut *self.state.get() })
    }

    /// From now on, the idle timeouts of servers are learned here, if that is configured.
    pub fn learn(&self, learned: &Learned) {
        if self.settings.learns() {
            let _ = self.learned.set(learned.clone());
        }
    }

    /// Where the idle timeouts of servers are learned, if they are.
    pub fn learned(&self) -> Option<&Learned> {
        self.learned.get()
    }

    /// What is learned about a server.
    fn server<'a>(&'a self, address: &'a [u8], now: Time) -> Server<'a> {
        let margin = self.settings.hints.map_or(0, |hints| hints.margin);
        Server { learned: self.learned.get(), address, margin, now }
    }

    /// A server has closed a connection while a request was sent on it, which before was idle for
    /// this time, in milliseconds.
    pub fn closed_in_use(&self, address: &[u8], idle: u32, now: Time) {
        self.server(address, now).closed(Closed::Peer, idle);
    }

    /// Takes the most recently parked connection of an identity, for a request, unless it has
    /// ended: then it has left, too. `end` answers why it has, and calls no function of nginx.
    /// `lookup` is new, or of this identity in this upstream.
    #[inline(always)]
    pub fn take(
        &self,
        identity: &Identity<'_>,
        lookup: &mut Lookup,
        (now, end): (Time, impl FnOnce(&Parked) -> Option<Closed>),
    ) -> Option<Taken> {
        self.with(|state| {
            if let Some((shared, local)) = state.shared() {
                let server = self.server(identity.address, now);
                return shared.take(identity, lookup, local, (&server, end));
            }
            let slot = state.pool.find(identity, lookup)?;
            let parked = *state.parked.get(slot)?;
            if let Some(why) = end(&parked) {
                self.server(identity.address, now).closed(why, parked.idle(now));
                state.pool.remove(slot);
                return state.closed(slot, why).map(Taken::Ended);
            }
            let idle = parked.idle(now);
            if policy::must_look(idle) {
                let server = self.server(identity.address, now);
                if let Verdict::TooOld(first_use) = server.check(idle, || state.oldest(slot, now)) {
                    return Some(Taken::TooOld(first_use));
                }
            }
            state.pool.take(slot);
            let counters = state.counters.block();
            counters.hit();
            counters.set_slices(state.pool.slices_in_use());
            Some(Taken::Hit(Removed::own(&parked)))
        })
    }

    /// Whether another connection to the server of an identity, which has none, is idle under its key:
    /// for debugging, since it looks at all.
    pub fn has_other(&self, identity: &Identity<'_>) -> bool {
        self.with(|state| match &state.shared {
            Some(shared) => shared.read(|all| all.pool().has_other(identity)).unwrap_or(false),
            None => state.pool.has_other(identity),
        })
    }

    /// Whether it has TLS sessions of its own, since its connections are not all alike.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn has_sessions(&self) -> bool {
        self.with(|state| state.sessions.is_some())
    }

    /// The TLS session of an identity.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn session(&self, identity: &Identity<'_>) -> Option<TlsSession> {
        self.with(|state| state.sessions.as_mut()?.get(identity))
    }

    /// Saves the TLS session of an identity.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn save_session(&self, identity: &Identity<'_>, session: TlsSession) {
        self.with(|state| {
            if let Some(sessions) = &mut state.sessions {
                sessions.set(identity, session);
            }
        });
    }

    /// Forgets all TLS sessions.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn forget_sessions(&self) {
        self.with(|state| state.sessions = None);
    }

    /// A request found no idle connection.
    pub fn miss(&self) {
        self.with(|state| state.counters.block().miss());
    }

    /// A request uses a connection of the balancer's own.
    pub fn balancer(&self) {
        self.with(|state| state.counters.block().balancer());
    }

    /// Keeps a connection under an identity, if no limit forbids it. `slice_limit` is the most
    /// connections that its slice may hold; `lookup` as for [`Self::take`].
    #[inline(always)]
    pub fn keep<'a>(
        &self,
        c: Connection,
        (identity, lookup): (impl FnOnce() -> Identity<'a>, &mut Lookup),
        (slice_limit, idle_limit): (u32, IdleLimit),
        now: Time,
    ) -> Keep {
        self.with(|state| {
            let upstream = NonNull::from(self).cast();
            if let Some((shared, local)) = state.shared() {
                let limits = (slice_limit, idle_limit);
                return shared.keep((upstream, c), (&identity(), lookup), limits, now, local);
            }
            match state.pool.put(identity, lookup, slice_limit) {
                Put::Kept(slot) => {
                    let counters = state.counters.block();
                    counters.saved();
                    counters.set_slices(state.pool.slices_in_use());
                    let parked = Parked::new(upstream, c.as_non_null(), now, idle_limit);
                    Keep::Kept(state.parked.set(slot, parked))
                }
                Put::Close(slot, why) => {
                    state.pool.remove(slot);
                    match state.closed(slot, why.into()) {
                        Some(removed) => Keep::Close(removed),
                        None => Keep::Refused(Refused::Disabled),
                    }
                }
                Put::NotKept(why) => Keep::Refused(why.into()),
            }
        })
    }

    /// A connection is not kept after a request.
    pub fn refuse(&self, why: Refused) {
        self.with(|state| state.counters.block().refused(why));
    }

    /// Removes the connection of a slot for a reason, to be closed.
    pub fn remove(&self, slot: SlotIndex, why: Closed, now: Time) -> Option<Removed> {
        let closed = |address: &_, idle| self.server(address, now).closed(why, idle);
        self.with(|state| {
            if let Some((shared, local)) = state.shared() {
                let parked = *local.0.get(slot)?;
                return shared
                    .remove(slot, why, local, |address| closed(address, parked.idle(now)));
            }
            if let (Some(address), Some(parked)) =
                (state.pool.address(slot), state.parked.get(slot))
            {
                closed(address, parked.idle(now));
            }
            state.pool.remove(slot).then(|| state.closed(slot, why))?
        })
    }

    /// Removes any connection for a reason, to be closed.
    pub fn pop(&self, why: Closed) -> Option<Removed> {
        self.with(|state| match state.shared() {
            Some((shared, local)) => shared.pop(why, local),
            None => {
                let slot = state.pool.pop()?;
                state.closed(slot, why)
            }
        })
    }

    /// Removes the connection of a slot since this worker is shutting down: it is sent to another
    /// worker if they share connections, and otherwise is to be closed.
    pub fn hand_over(&self, slot: SlotIndex) -> Option<Removed> {
        self.with(|state| match state.shared() {
            Some((shared, local)) => shared.hand_over(slot, local),
            None => state.pool.remove(slot).then(|| state.closed(slot, Closed::Shutdown))?,
        })
    }

    /// Whether the connection of a slot is still this worker's.
    pub fn holds(&self, slot: SlotIndex) -> bool {
        self.with(|state| state.shared.as_ref().is_none_or(|shared| shared.holds(slot)))
    }

    /// The entry of a connection that is parked in a slot.
    pub fn parked(&self, slot: SlotIndex) -> Option<Parked> {
        self.with(|state| state.parked.get(slot).copied())
    }

    /// The counters of all workers together. `lives` tells whether a worker of this number is
    /// alive.
    pub fn totals(&self, now: Time, lives: impl Fn(Pid) -> bool) -> Totals {
        self.with(|state| {
            let blocks = state.counters.blocks();
            let Some(shared) = &mut state.shared else { return Totals::sum(blocks, lives) };
            shared.search(now);
            let totals = shared.read(|all| {
                let (idle, slices) = (all.pool().count(), all.pool().slices_in_use());
                Totals::sum_shared(blocks, lives, (idle.into(), slices.unwrap_or(0).into()))
            });
            totals.unwrap_or_default()
        })
    }

    /// Reads the slices that hold idle connections: of this worker, or of all if they share their
    /// connections. `read` calls no function of nginx, and none of an upstream.
    pub fn read_slices<R>(
        &self,
        mut read: impl FnMut(&mut dyn Iterator<Item = UsedSlice<'_>>) -> R,
    ) -> Option<R> {
        self.with(|state| match &state.shared {
            Some(shared) => shared.read(|all| read(&mut all.pool().slices())),
            None => Some(read(&mut state.pool.slices())),
        })
    }

    /// This worker begins: from now on it counts in memory that the others see, and shares its
    /// connections with them if that is configured. `None` if there is not enough memory.
    pub fn begin(&self, configuration: u64, memory: Memory) -> Option<()> {
        self.with(|state| {
            state.counters.claim();
            let Some(zone) = state.counters.connections() else { return Some(()) };
            let keepalive = &self.settings.keepalive;
            let slots = zone::reserved(keepalive.limits(0, 0)).connections;
            let mut shared = SharedCache::new_in(zone, configuration, slots, memory).ok()?;
            let slices = keepalive.slice_key.as_ref().map(|_| keepalive.slice_poolsize);
            let slice_limit = keepalive.slice_conn.filter(|_| keepalive.slice_dyn.is_none());
            let limits = (keepalive.connections, slices, slice_limit.unwrap_or(u32::MAX));
            shared.set_limits(limits, state.counters.block());
            state.shared = Some(shared);
            Some(())
        })
    }

    /// This worker is about to end: another process may get its number.
    pub fn end(&self, process: Pid) {
        self.with(|state| {
            state.counters.block().release(process);
            if let Some(shared) = &state.shared {
                shared.end();
            }
        });
    }

    /// Whether the workers share their connections.
    #[inline(always)]
    pub fn is_shared(&self) -> bool {
        self.with(|state| state.shared.is_some())
    }

    /// This worker receives no further connections.
    pub fn set_ending(&self) {
        self.with(|state| {
            if let Some(shared) = &state.shared {
                shared.set_ending();
            }
        });
    }

    /// Whether no worker has a later configuration of this upstream.
    pub fn is_latest(&self) -> bool {
        self.with(|state| state.shared.as_ref().is_none_or(SharedCache::is_latest))
    }

    /// Whether there is a worker that receives connections of this upstream.
    pub fn has_receiver(&self, lives: impl Fn(Pid) -> bool) -> bool {
        self.with(|state| state.shared.as_ref().is_some_and(|shared| shared.has_receiver(lives)))
    }

    /// Whether a letter is about a connection of this upstream.
    pub fn is_in(&self, zone: u64) -> bool {
        self.with(|state| state.shared.as_ref().is_some_and(|shared| shared.is_in(zone)))
    }

    /// Becomes the holder of a connection that another worker has sent. Without a descriptor, or if
    /// `is_server` is false for its address, it is forgotten.
    pub fn receive(
        &self,
        ticket: Ticket,
        fd: Option<OwnedFd>,
        is_server: impl Fn(&[u8]) -> bool,
    ) -> Option<Moved> {
        self.with(|state| {
            let (shared, (_, counters)) = state.shared()?;
            shared.receive(ticket, fd, is_server, counters)
        })
    }

    /// The connection that was moved here for a request.
    pub fn moved(&self) -> Option<Moved> {
        self.with(|state| state.shared.as_mut()?.moved.take())
    }

    /// Parks a connection that was moved here; the answer is as for [`Keep::Kept`]. `None` if
    /// another worker has taken it away meanwhile.
    pub fn park_moved(&self, ticket: Ticket, c: Connection, idle: &Idle) -> Option<*mut c_void> {
        let (upstream, limit) = (NonNull::from(self).cast(), idle.limit(idle.since));
        let parked = Parked::new(upstream, c.as_non_null(), idle.since, limit);
        self.with(|state| {
            let (shared, (table, _)) = state.shared()?;
            shared.park(ticket, parked, table)
        })
    }

    /// A request uses a connection that was moved here; `false` if another worker has closed it
    /// meanwhile.
    pub fn use_moved(&self, ticket: Ticket) -> bool {
        self.with(|state| {
            state.shared().is_some_and(|(shared, (_, counters))| shared.use_moved(ticket, counters))
        })
    }

    /// Forgets a connection that was moved here, since there is no `ngx_connection_t` for it; `false`
    /// if another worker has taken it away meanwhile.
    pub fn forget_moved(&self, ticket: Ticket) -> bool {
        self.with(|state| {
            let forget = |(shared, (_, counters)): (&mut SharedCache, shared::Local<'_>)| {
                shared.forget_moved(ticket, counters)
            };
            state.shared().is_some_and(forget)
        })
    }

    /// Whether [`Self::next_called`] or [`Self::first_refusal`] has an answer.
    #[inline(always)]
    pub fn is_called(&self) -> bool {
        self.with(|state| state.shared.as_ref().is_some_and(SharedCache::is_called))
    }

    /// Removes a connection that another worker has taken away, or wants closed.
    pub fn next_called(&self) -> Option<Removed> {
        self.with(|state| {
            let (shared, local) = state.shared()?;
            shared.next_called(local)
        })
    }

    /// Forgets the connections of workers that have died, unless that was done a moment ago.
    pub fn search(&self, now: Time) {
        self.with(|state| {
            if let Some(shared) = &mut state.shared {
                shared.search(now);
            }
        });
    }

    /// Why a connection of another worker could not be used, the first time in this worker.
    pub fn first_refusal(&self) -> Option<Errno> {
        let refusal = self.with(|state| state.shared.as_mut()?.refusal())?;
        (!self.refusal_logged.replace(true)).then_some(refusal)
    }
}
