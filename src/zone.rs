//! The memory that the workers share: a zone for each upstream, so that a reload, which can add and
//! remove upstreams, keeps that of the others. The workers count there, and with `shared` their idle
//! connections lie there.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt::Write as _;
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use nginx_sys::{
    NGX_MAX_PROCESSES, NGX_PROCESS_SINGLE, ngx_conf_t, ngx_int_t, ngx_pagesize, ngx_pid,
    ngx_process, ngx_process_slot, ngx_shared_memory_add, ngx_shm_zone_t, ngx_shmtx_lock,
    ngx_shmtx_t, ngx_shmtx_unlock, ngx_slab_alloc, ngx_slab_pool_t, ngx_uint_t,
};
use ngx::core::{NgxStr, Pool, SlabPool};

use crate::counters::{Pid, WorkerCounters};
use crate::nginx;
use crate::pool::{Limits, Seed, SliceLimits};
use crate::shared::{Connections, Shared, WorkerNumber};

/// As many blocks as there can be processes, since the old workers of a reload still count while
/// the new ones do.
const BLOCKS: usize = NGX_MAX_PROCESSES as usize;

/// The content of a zone; all zeroes if it was never used.
#[repr(C)]
struct Content {
    /// How many of the blocks, from the first one on, have ever been used. The memory of the others
    /// is never touched.
    used: AtomicUsize,
    blocks: [WorkerCounters; BLOCKS],
    /// Distinguishes zones with connections; otherwise 0.
    number: u64,
    /// The idle connections, if they are shared: locked only.
    connections: UnsafeCell<Option<Shared<SlabPool>>>,
}

/// The number of the last zone with connections.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The connections for which a zone has memory.
#[derive(Clone, Copy)]
pub struct SharedLimits<'a> {
    /// The limits in the configuration.
    pub limits: Limits,
    /// The text of `slice_key`. Under another one, the same key would mean something else, so the
    /// connections would have to be forgotten: it is a part of the zone's name. Whether it is the
    /// name of a variable alone, and the text.
    pub key_text: (bool, &'a [u8]),
    /// Whether keys are not cut: one that is cut to the length of another one is not that key.
    pub strict: bool,
    /// For the hashes.
    pub seed: Seed,
}

/// As much memory as for this number of connections at least: so that a reload with other limits
/// keeps the zone, and the connections, there are few sizes.
const CONNECTIONS: u32 = 256;

/// The limits for which a zone has memory.
pub fn reserved(limits: Limits) -> Limits {
    let connections = limits.connections.max(CONNECTIONS).checked_next_power_of_two();
    let connections = connections.unwrap_or(limits.connections);
    let slices = limits.slices.map(|slices| SliceLimits { slices: connections, ..slices });
    Limits { connections, slices, ..limits }
}

/// Stands before the upstream's name, since the upstream module's own zone may have that name.
const PREFIX: &str = "upstream_keepalive";

/// The counters of a configuration that is not set up, in which no worker counts.
static NONE: WorkerCounters = WorkerCounters::new();

/// The counters of an upstream: the place where its workers count.
pub struct CounterZone {
    /// This worker's block.
    block: NonNull<WorkerCounters>,
    /// Null if there is no zone; `block` is then memory of this process alone.
    zone: *mut ngx_shm_zone_t,
}

impl Default for CounterZone {
    fn default() -> Self {
        CounterZone { block: NonNull::from(&NONE), zone: ptr::null_mut() }
    }
}

impl CounterZone {
    /// Counts in memory of this process alone: until [`Self::claim`], and always for an upstream
    /// that is created at run time, or that no `keepalive_status` shows. `None` if there is no
    /// memory.
    ///
    /// # Safety
    ///
    /// `cf` is valid.
    pub unsafe fn begin(&mut self, cf: *mut ngx_conf_t) -> Option<()> {
        // SAFETY: `cf` has a pool.
        let pool = unsafe { Pool::from_ngx_pool((*cf).pool) };
        self.block = NonNull::from(Box::leak(Box::try_new_in(WorkerCounters::new(), pool).ok()?));
        // SAFETY: nginx sets the process's number when it starts.
        self.block().claim(unsafe { ngx_pid } as Pid);
        Some(())
    }

    /// Has nginx create the zone of an upstream, or keep the existing one. `None` if there is an
    /// error, which nginx has logged.
    ///
    /// # Safety
    ///
    /// The configuration file with the upstream is being read.
    pub unsafe fn share(
        &mut self,
        cf: *mut ngx_conf_t,
        upstream: &[u8],
        shared: Option<SharedLimits<'_>>,
    ) -> Option<()> {
        // SAFETY: `cf` has a pool.
        let memory = unsafe { Pool::from_ngx_pool((*cf).pool) };
        let mut name = nginx::as_ngx_str(zone_name(upstream, shared, memory.clone())?);
        let connections = shared.map(|shared| {
            Shared::<SlabPool>::memory(reserved(shared.limits), BLOCKS as WorkerNumber)
        });
        let size = size(size_of::<Content>(), connections);
        let tag = nginx::this_module_ptr().cast();
        // SAFETY: the configuration is being read.
        let zone = unsafe { ngx_shared_memory_add(cf, &raw mut name, size, tag).as_mut() }?;
        zone.init = Some(init_zone);
        if let Some(shared) = shared {
            let request = (reserved(shared.limits), shared.seed);
            let request: &(Limits, Seed) = Box::leak(Box::try_new_in(request, memory).ok()?);
            zone.data = ptr::from_ref(request).cast_mut().cast();
        }
        self.zone = zone;
        Some(())
    }

    /// This worker's block.
    pub fn block(&self) -> &WorkerCounters {
        // SAFETY: a block is valid as long as the configuration, and is only read and written
        // atomically.
        unsafe { self.block.as_ref() }
    }

    /// The blocks of all workers.
    pub fn blocks(&self) -> &[WorkerCounters] {
        match self.shared() {
            Some(shared) => shared.blocks.get(..shared.used.load(Relaxed)).unwrap_or_default(),
            None => slice::from_ref(self.block()),
        }
    }

    /// The content of the zone, if there is one. A process that is its own master uses none: when
    /// it reloads, nginx frees zones while connections of the old configuration are still open.
    fn shared(&self) -> Option<&Content> {
        // SAFETY: nginx sets the kind of the process. The zone of a running worker is initialised,
        // and what is in it is only read and written atomically, or locked.
        unsafe {
            if ngx_process == NGX_PROCESS_SINGLE as ngx_uint_t {
                return None;
            }
            self.zone.as_ref()?.data.cast::<Content>().as_ref()
        }
    }

    /// The connections that the workers share; `None` if they do not.
    pub fn connections(&self) -> Option<SharedZone> {
        let content = self.shared().filter(|content| content.number != 0)?;
        // SAFETY: the zone of a running worker is initialised.
        let memory = unsafe { SlabPool::from_shm_zone(self.zone.as_ref()?)? };
        Some(SharedZone { content: NonNull::from(content), memory })
    }

    /// Chooses the block of this worker, which has just started.
    pub fn claim(&mut self) {
        let (number, process) = this_worker();
        let block = self.shared().and_then(|shared| {
            let block = shared.blocks.get(usize::from(number))?;
            shared.used.fetch_max(usize::from(number).saturating_add(1), Relaxed);
            Some((NonNull::from(block), shared.number != 0))
        });
        let (block, shared) = block.unwrap_or((self.block, false));
        self.block = block;
        if shared {
            // Who counts the end of a connection need not have counted its beginning.
            self.block().set_owner(process);
        } else {
            self.block().claim(process);
        }
    }
}

/// The number of this worker, below [`BLOCKS`], and its process. nginx gives a number to another
/// worker when the process that had it has ended.
pub fn this_worker() -> (WorkerNumber, Pid) {
    // SAFETY: nginx sets both when the process starts.
    let (slot, process) = unsafe { (ngx_process_slot, ngx_pid as Pid) };
    (WorkerNumber::try_from(slot).unwrap_or(WorkerNumber::MAX), process)
}

/// The lock of a zone's memory, as long as this exists: [`SlabPool::lock`] costs another call.
pub struct Locked(*mut ngx_shmtx_t);

impl Locked {
    /// Waits for the lock.
    #[inline(always)]
    pub fn new(memory: &SlabPool) -> Self {
        let mutex = (&raw const memory.as_ref().mutex).cast_mut();
        // SAFETY: the zone lives as long as the worker, and nginx changes the mutex atomically.
        unsafe { ngx_shmtx_lock(mutex) };
        Locked(mutex)
    }
}

impl Drop for Locked {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: it was locked.
        unsafe { ngx_shmtx_unlock(self.0) }
    }
}

/// The idle connections that the workers share.
pub struct SharedZone {
    content: NonNull<Content>,
    memory: SlabPool,
}

impl SharedZone {
    /// Runs one operation, with the memory locked: it calls no function of nginx, and does not come
    /// here again. If the process dies meanwhile, its master unlocks the memory. `None` without
    /// connections.
    #[inline(always)]
    pub fn run<R>(&self, operation: impl FnOnce(&mut Connections<SlabPool>) -> R) -> Option<R> {
        let _locked = Locked::new(&self.memory);
        // SAFETY: the zone lives as long as the worker, and nobody else refers to the connections
        // while the memory is locked.
        let shared = unsafe { (*self.content.as_ref().connections.get()).as_mut()? };
        Some(shared.run(operation))
    }

    /// The number of the zone, different from that of any other zone.
    pub fn number(&self) -> u64 {
        // SAFETY: the zone lives as long as the worker, and the number does not change.
        unsafe { self.content.as_ref().number }
    }
}

/// The name of a zone. Without connections, it is that of the upstream.
fn zone_name<'a>(
    upstream: &[u8],
    shared: Option<SharedLimits<'_>>,
    memory: Pool,
) -> Option<&'a [u8]> {
    let mut name = Name(Vec::new_in(memory));
    let upstream = NgxStr::from_bytes(upstream);
    match shared {
        None => write!(name, "{PREFIX}:{upstream}"),
        Some(shared) => {
            let length = shared.limits.slices.map_or(0, |slices| slices.key_length);
            let (is_variable, text) = shared.key_text;
            let (dollar, key) = (if is_variable { "$" } else { "" }, NgxStr::from_bytes(text));
            let strict = if shared.strict { "!" } else { "" };
            let attributes = shared.limits.attributes_length;
            write!(name, "{PREFIX}_shared:{upstream}:{length}{strict}:{attributes}:{dollar}{key}")
        }
    }
    .ok()?;
    Some(name.0.leak())
}

/// Text in the memory of the configuration.
struct Name(Vec<u8, Pool>);

impl core::fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.try_reserve(text.len()).map_err(|_| core::fmt::Error)?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The size of a zone: its content, what the content allocates, and the overhead of nginx's slab
/// allocator, which gives whole pages and has an entry for each.
pub fn size(content: usize, allocated: Option<usize>) -> usize {
    // SAFETY: nginx sets it when it starts.
    let page = unsafe { ngx_pagesize };
    let allocated =
        allocated.map_or(0, |allocated| allocated.saturating_add(page.saturating_mul(16)));
    let pages = content.next_multiple_of(page).saturating_add(allocated);
    pages.saturating_add(pages / 64).next_multiple_of(page).saturating_add(page.saturating_mul(4))
}

/// The `init` handler of a zone: takes over what is in it from before a reload.
///
/// # Safety
///
/// nginx calls it with a valid zone, whose data is what [`CounterZone::share`] has put there, and the
/// data of the zone that this one continues.
unsafe extern "C" fn init_zone(zone: *mut ngx_shm_zone_t, old: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes a valid zone, whose memory begins with a slab pool.
    unsafe {
        let request = (*zone).data.cast::<(Limits, Seed)>().as_ref();
        (*zone).data = old;
        if old.is_null() {
            let Some(content) = make_content(&*zone, request) else { return nginx::ERROR };
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
unsafe fn make_content(
    zone: &ngx_shm_zone_t,
    request: Option<&(Limits, Seed)>,
) -> Option<NonNull<Content>> {
    // SAFETY: the zone is valid. New shared memory is zeroes, as needed, but nginx fills it for some
    // tests.
    unsafe {
        let pool: *mut ngx_slab_pool_t = zone.shm.addr.cast();
        let content: NonNull<Content> =
            NonNull::new(ngx_slab_alloc(pool, size_of::<Content>()).cast())?;
        if content.cast::<u8>().read() != 0 {
            content.write_bytes(0, 1);
        }
        let place = content.as_ptr();
        (&raw mut (*place).connections).write(UnsafeCell::new(None));
        if let Some((limits, seed)) = request {
            let memory = SlabPool::from_shm_zone(zone)?;
            let shared = Shared::new_in(*limits, BLOCKS as WorkerNumber, seed, memory).ok()?;
            (&raw mut (*place).connections).write(UnsafeCell::new(Some(shared)));
            (*place).number = NUMBER.fetch_add(1, Relaxed).saturating_add(1);
        }
        Some(content)
    }
}
