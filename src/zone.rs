//! The memory in which the workers count: a shared zone for each upstream, so that a reload, which
//! can add and remove upstreams, keeps the counters of the others.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use nginx_sys::{
    NGX_MAX_PROCESSES, NGX_PROCESS_SINGLE, ngx_conf_t, ngx_int_t, ngx_pagesize, ngx_pid,
    ngx_process, ngx_process_slot, ngx_shared_memory_add, ngx_shm_zone_t, ngx_slab_alloc,
    ngx_slab_pool_t, ngx_uint_t,
};
use ngx::core::Pool;

use crate::counters::{Pid, WorkerCounters};
use crate::nginx;

/// As many blocks as there can be processes, since the old workers of a reload still count while
/// the new ones do.
const BLOCKS: usize = NGX_MAX_PROCESSES as usize;

/// The content of a zone; all zeroes if it was never used.
#[repr(C)]
struct Shared {
    /// How many of the blocks, from the first one on, have ever been used. The memory of the others
    /// is never touched.
    used: AtomicUsize,
    blocks: [WorkerCounters; BLOCKS],
}

/// Stands before the upstream's name, since the upstream module's own zone may have that name.
const PREFIX: &[u8] = b"upstream_keepalive:";

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
    pub unsafe fn share(&mut self, cf: *mut ngx_conf_t, upstream: &[u8]) -> Option<()> {
        // SAFETY: `cf` has a pool. It is the memory of the configuration, as nginx needs it for the
        // name.
        let mut name = Vec::new_in(unsafe { Pool::from_ngx_pool((*cf).pool) });
        name.try_reserve_exact(PREFIX.len().checked_add(upstream.len())?).ok()?;
        name.extend_from_slice(PREFIX);
        name.extend_from_slice(upstream);
        let mut name = nginx::as_ngx_str(name.leak());
        let tag = nginx::this_module_ptr().cast();
        // SAFETY: the configuration is being read.
        let zone = unsafe { ngx_shared_memory_add(cf, &raw mut name, zone_size(), tag).as_mut() }?;
        zone.init = Some(init_zone);
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
    fn shared(&self) -> Option<&Shared> {
        // SAFETY: nginx sets the kind of the process. The zone of a running worker is initialised,
        // and what is in it is only read and written atomically.
        unsafe {
            if ngx_process == NGX_PROCESS_SINGLE as ngx_uint_t {
                return None;
            }
            self.zone.as_ref()?.data.cast::<Shared>().as_ref()
        }
    }

    /// Chooses the block of this worker, which has just started.
    pub fn claim(&mut self) {
        // SAFETY: nginx numbers the processes below the limit, and gives a number to another one
        // when the process that had it has ended.
        let (slot, process) = unsafe { (ngx_process_slot, ngx_pid as Pid) };
        let slot = usize::try_from(slot).unwrap_or(BLOCKS);
        let block = self.shared().and_then(|shared| {
            let block = shared.blocks.get(slot)?;
            shared.used.fetch_max(slot.saturating_add(1), Relaxed);
            Some(NonNull::from(block))
        });
        self.block = block.unwrap_or(self.block);
        self.block().claim(process);
    }
}

/// The size of a zone: its content, and the overhead of nginx's slab allocator.
fn zone_size() -> usize {
    // SAFETY: nginx sets it when it starts.
    let page = unsafe { ngx_pagesize };
    size_of::<Shared>().next_multiple_of(page).saturating_add(page.saturating_mul(4))
}

/// The `init` handler of a zone: takes over the counters from before a reload.
///
/// # Safety
///
/// nginx calls it with a valid zone, and the data of the zone that this one continues.
unsafe extern "C" fn init_zone(zone: *mut ngx_shm_zone_t, old: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes a valid zone, whose memory begins with a slab pool. New shared memory is
    // zeroes, as needed, but nginx fills it for some tests.
    unsafe {
        (*zone).data = old;
        if old.is_null() {
            let pool: *mut ngx_slab_pool_t = (*zone).shm.addr.cast();
            let shared: *mut Shared = ngx_slab_alloc(pool, size_of::<Shared>()).cast();
            if shared.is_null() {
                return nginx::ERROR;
            }
            if shared.cast::<u8>().read() != 0 {
                shared.write_bytes(0, 1);
            }
            (*zone).data = shared.cast();
        }
        nginx::OK
    }
}
