//! The idle timeouts of servers, which the workers learn together: in a shared memory zone, which a
//! reload keeps, or in the memory of a process that has none.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::{self, NonNull};

use allocator_api2::boxed::Box;
use nginx_sys::{
    NGX_PROCESS_SINGLE, ngx_conf_t, ngx_int_t, ngx_process, ngx_shared_memory_add, ngx_shm_zone_t,
    ngx_uint_t,
};
use ngx::core::{Pool, SlabPool};

use crate::guarded::Guarded;
use crate::nginx;
use crate::policy::Time;
use crate::policy::idle_timeouts::{IdleTimeouts, Verdict};
use crate::pool::Length;
use crate::zone::{self, Locked};

const NAME: &[u8] = b"upstream_keepalive_idle_timeouts";

/// Memory for this number of servers at least: so that a reload with other servers keeps the zone,
/// there are few sizes.
const SERVERS: u32 = 64;

/// The longest server address, in bytes.
const ADDRESS: Length = size_of::<libc::sockaddr_un>() as Length;

/// The number of servers for which there is memory if the configuration names so many: as many again
/// may have other addresses, by a resolver or a reload.
fn capacity(servers: usize) -> u32 {
    let servers = u32::try_from(servers).unwrap_or(u32::MAX).saturating_mul(2).max(SERVERS);
    servers.checked_next_power_of_two().unwrap_or(u32::MAX)
}

/// The content of a zone, locked only.
type InZone = UnsafeCell<Guarded<IdleTimeouts<SlabPool>>>;

/// What belongs to one process.
type Own = UnsafeCell<IdleTimeouts<Pool>>;

/// The idle timeouts that a worker learns and uses.
#[derive(Clone)]
pub enum Learned {
    /// With all other workers.
    Zone(NonNull<InZone>, SlabPool),
    /// By itself.
    Own(NonNull<Own>),
}

/// Has nginx create the zone for the servers of a configuration, or keep the existing one. `None` if
/// there is an error, which nginx has logged.
///
/// # Safety
///
/// The configuration file is being read.
pub unsafe fn add_zone(cf: *mut ngx_conf_t, servers: usize) -> Option<NonNull<ngx_shm_zone_t>> {
    let capacity = capacity(servers);
    let allocated = IdleTimeouts::<SlabPool>::memory(capacity, ADDRESS);
    let size = zone::size(size_of::<InZone>(), Some(allocated));
    let tag = nginx::this_module_ptr().cast();
    let mut name = nginx::as_ngx_str(NAME);
    // SAFETY: `cf` has a pool, and the configuration is being read.
    unsafe {
        let mut zone = NonNull::new(ngx_shared_memory_add(cf, &raw mut name, size, tag))?;
        let memory = Pool::from_ngx_pool((*cf).pool);
        let capacity: &u32 = Box::leak(Box::try_new_in(capacity, memory).ok()?);
        zone.as_mut().init = Some(init_zone);
        zone.as_mut().data = ptr::from_ref(capacity).cast_mut().cast();
        Some(zone)
    }
}

impl Learned {
    /// What the workers of a configuration learn together in its zone; or by itself, in a process
    /// that is its own master: when it reloads, nginx frees zones while connections of the old
    /// configuration are still open. `None` if there is not enough memory.
    ///
    /// # Safety
    ///
    /// The zone is that of a running worker.
    pub unsafe fn open(zone: NonNull<ngx_shm_zone_t>, memory: Pool) -> Option<Self> {
        // SAFETY: nginx sets the kind of the process, and initialises the zones of its workers.
        unsafe {
            let zone = zone.as_ref();
            if ngx_process == NGX_PROCESS_SINGLE as ngx_uint_t {
                return Learned::own_in(memory);
            }
            Some(Learned::Zone(NonNull::new(zone.data.cast())?, SlabPool::from_shm_zone(zone)?))
        }
    }

    /// What a process learns by itself. `None` if there is not enough memory.
    pub fn own_in(memory: Pool) -> Option<Self> {
        let own = IdleTimeouts::new_in(SERVERS, ADDRESS, memory.clone()).ok()?;
        let own = Box::leak(Box::try_new_in(UnsafeCell::new(own), memory).ok()?);
        Some(Learned::Own(NonNull::from(own)))
    }

    /// See [`IdleTimeouts::closed`].
    pub fn closed(&self, address: &[u8], age: u32, now: Time) {
        match self {
            Learned::Zone(zone, memory) => {
                in_zone(zone, memory, |all| all.closed(address, age, now));
            }
            Learned::Own(own) => in_own(own, |all| all.closed(address, age, now)),
        }
    }

    /// See [`IdleTimeouts::check`].
    pub fn check(
        &self,
        address: &[u8],
        ages: (u32, impl FnOnce() -> Option<u32>),
        time: (Time, u64),
    ) -> Verdict {
        match self {
            Learned::Zone(zone, memory) => {
                in_zone(zone, memory, |all| all.check(address, ages, time))
            }
            Learned::Own(own) => in_own(own, |all| all.check(address, ages, time)),
        }
    }

    /// Reads all timeouts that are known: the address and the timeout, in milliseconds. `read` does
    /// not come here again.
    pub fn read(&self, mut read: impl FnMut(&mut dyn Iterator<Item = (&[u8], u32)>)) {
        match self {
            Learned::Zone(zone, memory) => in_zone(zone, memory, |all| read(&mut all.iter())),
            Learned::Own(own) => in_own(own, |all| read(&mut all.iter())),
        }
    }
}

/// Runs one operation, with the zone locked, which does not come here again. If the process dies
/// meanwhile, its master unlocks the zone.
fn in_zone<R>(
    zone: &NonNull<InZone>,
    memory: &SlabPool,
    operation: impl FnOnce(&mut IdleTimeouts<SlabPool>) -> R,
) -> R {
    let _locked = Locked::new(memory);
    // SAFETY: the zone lives as long as the worker, and nobody else refers to its content while it
    // is locked.
    unsafe { (*zone.as_ref().get()).run(operation) }
}

/// Runs one operation, which does not come here again.
fn in_own<R>(own: &NonNull<Own>, operation: impl FnOnce(&mut IdleTimeouts<Pool>) -> R) -> R {
    // SAFETY: a worker has one thread, and the memory lives as long as the configuration.
    operation(unsafe { &mut *own.as_ref().get() })
}

/// The `init` handler of a zone: takes over what was learned before a reload.
///
/// # Safety
///
/// nginx calls it with a valid zone, whose data is what [`add_zone`] has put there, and the
/// data of the zone that this one continues.
unsafe extern "C" fn init_zone(zone: *mut ngx_shm_zone_t, old: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes a valid zone, whose memory begins with a slab pool.
    unsafe {
        let capacity = *(*zone).data.cast::<u32>();
        (*zone).data = old;
        if old.is_null() {
            let Some(content) = make_content(&*zone, capacity) else { return nginx::ERROR };
            (*zone).data = content.as_ptr().cast();
        }
        nginx::OK
    }
}

/// Makes the content of a zone. `None` if there is not enough memory, which nginx has logged.
///
/// # Safety
///
/// The zone is valid, and its memory begins with a slab pool.
unsafe fn make_content(zone: &ngx_shm_zone_t, capacity: u32) -> Option<NonNull<InZone>> {
    // SAFETY: the zone is valid.
    let memory = unsafe { SlabPool::from_shm_zone(zone)? };
    let content = IdleTimeouts::new_in(capacity, ADDRESS, memory.clone()).ok()?;
    let content = Box::try_new_in(UnsafeCell::new(Guarded::new(content)), memory).ok()?;
    Some(NonNull::from(Box::leak(content)))
}
