//! The results of a request's attempts to find an idle connection, for the variables.
//!
//! A request may pass through several upstreams, one after the other, and at an internal redirect
//! nginx clears the data that modules have for a request. So a trace is linked to the request's
//! pool, as a cleanup that does nothing, and is found there again.

use core::cell::Cell;
use core::ffi::c_void;
use core::iter;
use core::ptr::NonNull;

use nginx_sys::{ngx_http_request_t, ngx_pool_cleanup_t};

use crate::nginx;

/// The result of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// The balancer had no server, or a connection of its own.
    None = 0,
    /// There was no idle connection.
    Miss = 1,
    /// There was one.
    Hit = 2,
    /// There was one of another worker.
    Borrowed = 3,
}

/// The size of an attempt.
const BITS: u32 = 2;
/// No attempt; also the mark before the first one.
const EMPTY: u64 = 0b10;
/// From this value on, no further attempt fits.
const FULL: u64 = EMPTY << (u64::BITS - BITS);

/// Attempts that follow one another.
#[repr(C)]
pub struct Trace {
    /// The first member, since nginx hands on a pointer to it. Its `data` is the request.
    cleanup: ngx_pool_cleanup_t,
    /// The index of the first attempt in the request's `upstream_states`.
    first: Cell<usize>,
    /// The attempts, the last one in the lowest bits, and [`EMPTY`] before them.
    attempts: Cell<u64>,
}

impl Trace {
    /// A trace of the attempts that follow, to be linked.
    ///
    /// # Safety
    ///
    /// The request is valid, and nginx has made its array of states.
    pub unsafe fn new(r: *mut ngx_http_request_t) -> Self {
        // SAFETY: the request and its array are valid.
        let (next, first) = unsafe { ((*(*r).pool).cleanup, (*(*r).upstream_states).nelts) };
        Trace {
            cleanup: ngx_pool_cleanup_t { handler: Some(HANDLER), data: r.cast(), next },
            first: Cell::new(first),
            attempts: Cell::new(EMPTY),
        }
    }

    /// Puts a trace into the list in which [`traces`] finds it.
    ///
    /// # Safety
    ///
    /// The trace is in memory of its request's pool, the request is valid, and no cleanup was added
    /// to the pool since [`Trace::new`].
    pub unsafe fn link(trace: NonNull<Self>) {
        let trace = trace.as_ptr();
        // SAFETY: the cleanup goes with the pool's memory. nginx's pointer to it is derived from
        // one to the whole trace, and to the structure whose first member the trace is.
        unsafe { (*(*(*trace).request()).pool).cleanup = &raw mut (*trace).cleanup };
    }

    /// Records the result of the next attempt. The trace is linked.
    pub fn push(&self, attempt: Attempt) {
        if self.attempts.get() >= FULL {
            self.store();
        }
        self.attempts.set(self.attempts.get() << BITS | attempt as u64);
    }

    /// Moves the attempts into another trace. Without memory for it, they are forgotten.
    fn store(&self) {
        let r = self.request();
        // SAFETY: a trace that is linked has a valid request, which had an array of states when the
        // trace was made; the copy is linked once.
        unsafe {
            let copy = Trace {
                first: self.first.clone(),
                attempts: self.attempts.clone(),
                ..Trace::new(r)
            };
            if let Some(copy) = nginx::allocate((*r).pool, copy) {
                Trace::link(copy);
            }
        }
        self.first.set(self.end());
        self.attempts.set(EMPTY);
    }

    /// The request.
    pub fn request(&self) -> *mut ngx_http_request_t {
        self.cleanup.data.cast()
    }

    fn len(&self) -> u32 {
        self.attempts.get().checked_ilog2().unwrap_or(0) / BITS
    }

    /// The index of the next attempt.
    fn end(&self) -> usize {
        self.first.get().saturating_add(self.len() as usize)
    }

    /// The attempt with an index in the request's `upstream_states`.
    fn get(&self, index: usize) -> Option<Attempt> {
        let left = self.end().checked_sub(index).filter(|_| index >= self.first.get())?;
        let shift = u32::try_from(left).ok()?.checked_sub(1)?.checked_mul(BITS)?;
        Some(match self.attempts.get().checked_shr(shift)? & 3 {
            1 => Attempt::Miss,
            2 => Attempt::Hit,
            3 => Attempt::Borrowed,
            _ => Attempt::None,
        })
    }
}

/// The traces of a request.
///
/// # Safety
///
/// The request is valid as long as the answer is used.
unsafe fn traces(r: *mut ngx_http_request_t) -> impl Iterator<Item = NonNull<Trace>> {
    // SAFETY: the request's pool is valid, and so are its cleanups.
    let mut next = unsafe { (*(*r).pool).cleanup };
    let cleanups = iter::from_fn(move || {
        let cleanup = NonNull::new(next)?;
        // SAFETY: as above.
        next = unsafe { (*cleanup.as_ptr()).next };
        Some(cleanup)
    });
    let is_trace = move |cleanup: &NonNull<ngx_pool_cleanup_t>| {
        // SAFETY: as above.
        let (handler, data) = unsafe { ((*cleanup.as_ptr()).handler, (*cleanup.as_ptr()).data) };
        // A subrequest has the pool of its main request.
        handler.is_some_and(|found| found as usize == HANDLER as usize) && data == r.cast()
    };
    cleanups.filter(is_trace).map(NonNull::cast)
}

/// The result of an attempt, by its index in the request's `upstream_states`.
///
/// # Safety
///
/// The request is valid.
pub unsafe fn attempt(r: *mut ngx_http_request_t, index: usize) -> Option<Attempt> {
    // SAFETY: the request is valid, and so are its traces.
    unsafe { traces(r).find_map(|trace| trace.as_ref().get(index)) }
}

/// The trace of a request with the latest attempts, and the index of the next attempt. It is a
/// trace that was made for an upstream: [`Trace::push`] moves only earlier attempts to another one.
///
/// # Safety
///
/// The request is valid.
pub unsafe fn last(r: *mut ngx_http_request_t) -> Option<(NonNull<Trace>, usize)> {
    // SAFETY: the request is valid, and so are its traces.
    unsafe { traces(r).map(|trace| (trace, trace.as_ref().end())).max_by_key(|&(_, end)| end) }
}

/// The handler that distinguishes a trace from other cleanups. The address of a function can differ
/// from one use to another; the content of a static cannot.
static HANDLER: unsafe extern "C" fn(*mut c_void) = handler;

/// # Safety
///
/// None is needed.
unsafe extern "C" fn handler(_: *mut c_void) {}
