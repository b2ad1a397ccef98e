//! What became of a request's attempts to find an idle connection, for the variables.
//!
//! A request may go through several upstreams, one after the other, and nginx forgets what modules
//! know of a request when it redirects internally. So a trace hangs on the request's pool, as a
//! cleanup that does nothing, and is found there again.

use core::ffi::c_void;
use core::iter;
use core::ptr;

use nginx_sys::{ngx_http_request_t, ngx_pool_cleanup_t};

use crate::nginx;

/// How an attempt has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// The balancer had no server, or a connection of its own.
    None = 0,
    /// There was no idle connection.
    Miss = 1,
    /// There was one.
    Hit = 2,
}

/// The size of an attempt.
const BITS: u32 = 2;
/// No attempt, and what is before the first one.
const EMPTY: u64 = 0b10;
/// As many attempts as fit.
const FULL: u64 = EMPTY << (u64::BITS - BITS);

/// Attempts that follow one another.
#[repr(C)]
pub struct Trace {
    /// The first member, since nginx hands on a pointer to it. Its `data` is the request.
    cleanup: ngx_pool_cleanup_t,
    /// The index of the first attempt in the request's `upstream_states`.
    first: usize,
    /// The attempts, the last one in the lowest bits, and [`EMPTY`] before them.
    attempts: u64,
}

impl Trace {
    /// A trace of what follows, to be linked.
    ///
    /// # Safety
    ///
    /// The request is valid, and nginx has made its array of states.
    pub unsafe fn new(r: *mut ngx_http_request_t) -> Self {
        // SAFETY: as promised.
        let (next, first) = unsafe { ((*(*r).pool).cleanup, (*(*r).upstream_states).nelts) };
        let (handler, data) = (Some(HANDLER), r.cast());
        Trace { cleanup: ngx_pool_cleanup_t { handler, data, next }, first, attempts: EMPTY }
    }

    /// Puts a trace, which is in memory of its request's pool, where [`traces`] finds it.
    ///
    /// # Safety
    ///
    /// `trace` and its request are valid, and no cleanup was added to the pool since [`Trace::new`].
    pub unsafe fn link(trace: *mut Trace) {
        // SAFETY: as promised; the pool goes with the memory of the trace.
        unsafe { (*(*(*trace).request()).pool).cleanup = &raw mut (*trace).cleanup };
    }

    /// Notes how the next attempt has ended.
    ///
    /// # Safety
    ///
    /// `trace` is valid and linked, and so is its request.
    #[inline(always)]
    pub unsafe fn push(trace: *mut Trace, attempt: Attempt) {
        // SAFETY: as promised.
        unsafe {
            if (*trace).attempts >= FULL {
                Trace::store(trace);
            }
            (*trace).attempts = (*trace).attempts << BITS | attempt as u64;
        }
    }

    /// Moves the attempts into another trace. Without memory for it, they are forgotten.
    ///
    /// # Safety
    ///
    /// As for [`Trace::push`].
    #[cold]
    #[inline(never)]
    unsafe fn store(trace: *mut Trace) {
        // SAFETY: as promised; the copy is linked once.
        unsafe {
            let r = (*trace).request();
            let Trace { first, attempts, .. } = *trace;
            if let Some(copy) =
                nginx::allocate((*r).pool, Trace { first, attempts, ..Trace::new(r) })
            {
                Trace::link(copy.as_ptr());
            }
            (*trace).first = (*trace).end();
            (*trace).attempts = EMPTY;
        }
    }

    /// The request.
    pub fn request(&self) -> *mut ngx_http_request_t {
        self.cleanup.data.cast()
    }

    fn len(&self) -> u32 {
        self.attempts.checked_ilog2().unwrap_or(0) / BITS
    }

    /// The index of the attempt that would be next.
    pub fn end(&self) -> usize {
        self.first.saturating_add(self.len() as usize)
    }

    /// The attempt with an index in the request's `upstream_states`.
    pub fn get(&self, index: usize) -> Option<Attempt> {
        let left = self.end().checked_sub(index).filter(|_| index >= self.first)?;
        let shift = u32::try_from(left).ok()?.checked_sub(1)?.checked_mul(BITS)?;
        Some(match self.attempts.checked_shr(shift)? & 3 {
            1 => Attempt::Miss,
            2 => Attempt::Hit,
            _ => Attempt::None,
        })
    }
}

/// The traces of a request.
///
/// # Safety
///
/// The request is valid, and the answer is used no longer than it.
pub unsafe fn traces<'a>(r: *mut ngx_http_request_t) -> impl Iterator<Item = &'a Trace> {
    // SAFETY: the request's pool is valid, and so are its cleanups, of which those with this
    // handler are traces.
    unsafe {
        iter::successors((*(*r).pool).cleanup.as_ref(), |cleanup| cleanup.next.as_ref())
            .filter(|cleanup| {
                cleanup.handler.is_some_and(|found| found as usize == HANDLER as usize)
            })
            .map(|cleanup| &*ptr::from_ref(cleanup).cast::<Trace>())
            // A subrequest has the pool of its main request.
            .filter(move |trace| trace.request() == r)
    }
}

/// What tells a trace from other cleanups. The address of a function need not be the same wherever
/// it is named; what is in a static is.
static HANDLER: unsafe extern "C" fn(*mut c_void) = handler;

/// # Safety
///
/// None is needed.
unsafe extern "C" fn handler(_: *mut c_void) {}
