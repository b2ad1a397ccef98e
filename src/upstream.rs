//! The live upstream of a worker: its settings, its pool of slots, the connections parked in them,
//! its counters, and the original `peer.init`.
//!
//! It owns every change of state: a connection is taken, kept or removed for a reason, and the
//! pool, the table of connections and the counters change together. No code outside of this room
//! can name them.
//!
//! The rule of borrowing: state is borrowed by [`Upstream::with`], for one operation that calls no
//! function of nginx, and by the unsafe [`Upstream::slices`]. nginx may call back into this module,
//! above all while it closes a connection; so a connection that has left is returned as
//! [`Removed`], and closed or used afterwards.

use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::ptr::NonNull;

use nginx_sys::{
    ngx_connection_t, ngx_http_upstream_init_peer_pt, ngx_http_upstream_init_pt,
    ngx_http_upstream_main_conf_t, ngx_http_upstream_srv_conf_t, ngx_str_t,
};
use ngx::core::{NgxStr, Pool as Memory};
use ngx::http::HttpModuleConfExt;

pub use self::parked::Parked;
use self::parked::Table;
use crate::conf::{Directives, Settings};
use crate::counters::{Closed, Pid, Refused, Totals};
use crate::nginx;
use crate::policy::{IdleLimit, Time};
use crate::pool::{self, Identity, Length, Lookup, Pool, Put, Seed, SlotIndex, UsedSlice};
use crate::zone::CounterZone;

mod parked;

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
    state: UnsafeCell<State>,
    /// Whether this worker has logged that a slice key was cut.
    cut_logged: Cell<bool>,
    /// Whether this worker has logged that a server's address is too long.
    address_logged: Cell<bool>,
}

struct State {
    pool: Pool<Memory>,
    parked: Table,
    counters: CounterZone,
}

impl State {
    fn closed(&mut self, slot: SlotIndex, why: Closed) -> Option<Removed> {
        let counters = self.counters.block();
        counters.closed(why);
        counters.set_slices(self.pool.slices_in_use());
        self.parked.get(slot).map(Removed::new)
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

/// A connection that was parked, and has left the upstream. Its receiver closes it or uses it.
#[must_use]
pub struct Removed(NonNull<ngx_connection_t>);

impl Removed {
    fn new(parked: &Parked) -> Self {
        Removed(parked.connection)
    }

    /// The connection, which now belongs to the caller.
    pub fn into_inner(self) -> NonNull<ngx_connection_t> {
        self.0
    }
}

/// The answer of [`Upstream::take`].
pub enum Taken {
    /// A connection for the request.
    Hit(Removed),
    /// A connection that has ended: close it, and ask again.
    Ended(Removed),
}

/// The answer of [`Upstream::keep`].
pub enum Keep {
    /// The connection is kept; with its data, for [`find_parked`].
    Kept(*mut c_void),
    /// This other one has left to make room: close it, and ask again.
    Close(Removed),
    /// The connection is not kept.
    Refused(pool::NotKept),
}

impl Upstream {
    /// An upstream without idle connections, for server addresses of this length; all the memory
    /// that it will ever use is reserved here. `None` if there is not enough.
    pub fn new_in(
        upstream: &ngx_http_upstream_srv_conf_t,
        settings: Settings,
        (address_length, seed): (Length, &Seed),
        counters: CounterZone,
        memory: Memory,
    ) -> Option<Self> {
        let limits = settings.keepalive.limits(address_length);
        let parked = Table::new_in(limits.connections, memory.clone()).ok()?;
        let pool = Pool::new_in(limits, seed, memory).ok()?;
        let state = State { pool, parked, counters };
        Some(Upstream {
            settings,
            name: upstream.host,
            original_init_peer: upstream.peer.init,
            state: UnsafeCell::new(state),
            cut_logged: Cell::new(false),
            address_logged: Cell::new(false),
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

    /// Takes the most recently parked connection of an identity, for a request, unless it has
    /// ended: then it has left, too. `end` answers why it has, and calls no function of nginx.
    /// `lookup` is new, or of this identity in this upstream.
    #[inline(always)]
    pub fn take(
        &self,
        identity: &Identity<'_>,
        lookup: &mut Lookup,
        end: impl FnOnce(&Parked) -> Option<Closed>,
    ) -> Option<Taken> {
        self.with(|state| {
            let slot = state.pool.find(identity, lookup)?;
            let parked = *state.parked.get(slot)?;
            if let Some(why) = end(&parked) {
                state.pool.remove(slot);
                return state.closed(slot, why).map(Taken::Ended);
            }
            state.pool.take(slot);
            let counters = state.counters.block();
            counters.hit();
            counters.set_slices(state.pool.slices_in_use());
            Some(Taken::Hit(Removed::new(&parked)))
        })
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
    /// connections that its slice may hold; `lookup` as for [`Self::find`].
    #[inline(always)]
    pub fn keep<'a>(
        &self,
        connection: NonNull<ngx_connection_t>,
        (identity, lookup): (impl FnOnce() -> Identity<'a>, &mut Lookup),
        (slice_limit, idle_limit): (u32, IdleLimit),
        now: Time,
    ) -> Keep {
        self.with(|state| match state.pool.put(identity, lookup, slice_limit) {
            Put::Kept(slot) => {
                let counters = state.counters.block();
                counters.saved();
                counters.set_slices(state.pool.slices_in_use());
                let limit = (idle_limit.deadline(now), idle_limit.by());
                let upstream = NonNull::from(self).cast();
                let parked = Parked::new(upstream, connection, now, limit);
                Keep::Kept(state.parked.set(slot, parked))
            }
            Put::Close(slot, why) => {
                state.pool.remove(slot);
                match state.closed(slot, why.into()) {
                    Some(removed) => Keep::Close(removed),
                    None => Keep::Refused(pool::NotKept::Disabled),
                }
            }
            Put::NotKept(why) => Keep::Refused(why),
        })
    }

    /// A connection is not kept after a request.
    pub fn refuse(&self, why: Refused) {
        self.with(|state| state.counters.block().refused(why));
    }

    /// Removes the connection of a slot for a reason, to be closed.
    pub fn remove(&self, slot: SlotIndex, why: Closed) -> Option<Removed> {
        self.with(|state| if state.pool.remove(slot) { state.closed(slot, why) } else { None })
    }

    /// Removes the least recently parked connection for a reason, to be closed.
    pub fn pop(&self, why: Closed) -> Option<Removed> {
        self.with(|state| {
            let slot = state.pool.pop()?;
            state.closed(slot, why)
        })
    }

    /// The entry of a connection that is parked in a slot.
    pub fn parked(&self, slot: SlotIndex) -> Option<Parked> {
        self.with(|state| state.parked.get(slot).copied())
    }

    /// The counters of all workers together. `lives` tells whether a worker of this number is
    /// alive.
    pub fn totals(&self, lives: impl Fn(Pid) -> bool) -> Totals {
        self.with(|state| Totals::sum(state.counters.blocks(), lives))
    }

    /// The slices of this worker that hold idle connections.
    ///
    /// # Safety
    ///
    /// No function that borrows the state of this upstream is called while the answer, or a slice,
    /// is in use.
    pub unsafe fn slices(&self) -> impl Iterator<Item = UsedSlice<'_>> {
        // SAFETY: as required; so the pool does not change.
        unsafe { (*self.state.get()).pool.slices() }
    }

    /// This worker begins: from now on it counts in memory that the others see.
    pub fn claim_counters(&self) {
        self.with(|state| state.counters.claim());
    }

    /// This worker is about to end: another process may get its number.
    pub fn release_counters(&self, process: Pid) {
        self.with(|state| state.counters.block().release(process));
    }
}
