//! Client connections whose users authenticate connections to a server, with `ntlm`.
//!
//! What is known about such a client connection lies in its memory, and so ends with it. There is one
//! [`Client`] for each upstream. Its number is an attribute of all connections to the upstream that
//! are made for its requests from then on, so no other request ever gets one of these.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::{iter, mem};

use nginx_sys::{
    NGX_HTTP_VERSION_20, ngx_connection_t, ngx_http_request_t, ngx_pid, ngx_pool_cleanup_t,
    ngx_queue_init, ngx_queue_insert_after, ngx_queue_remove, ngx_queue_t, ngx_uint_t,
};

use super::attempt::Attempt;
use crate::attributes::ClientNumber;
use crate::counters::{Closed, Pid};
use crate::idle;
use crate::nginx::{self, Connection};
use crate::upstream::Upstream;

/// A client connection, for an upstream.
struct Client {
    /// Only compared.
    upstream: *const Upstream,
    number: ClientNumber,
    /// The connections that are bound to it: each the first member of a [`Bound`].
    bound: ngx_queue_t,
}

/// A connection to a server that is bound to a client connection, in its own memory.
#[repr(C)]
struct Bound {
    /// The first member, so a pointer to it is one to the whole.
    queue: ngx_queue_t,
    connection: NonNull<ngx_connection_t>,
}

/// The number of the client connection that the connections of an attempt are bound to, if there is
/// one; its upstream has `ntlm`. `None` if there is no memory, or the connection is for this request
/// alone.
pub fn number(attempt: Attempt) -> Option<Option<ClientNumber>> {
    let (r, upstream) = (attempt.request(), attempt.upstream());
    // SAFETY: the request of an attempt is valid, and so is what is found for it.
    unsafe {
        if let Some(client) = find(r, upstream) {
            return Some(Some((*client.as_ptr()).number));
        }
        if !has_credentials(r) {
            return Some(None);
        }
        // Requests of several users may be under way on such a client connection at the same time.
        if (*r).http_version >= NGX_HTTP_VERSION_20 as ngx_uint_t {
            return None;
        }
        Some(Some((*make(r, upstream)?.as_ptr()).number))
    }
}

/// Binds a new connection, which is about to be saved, to the client connection of its request, if
/// that is one with credentials. `None` if there is no memory.
pub fn bind(attempt: Attempt, c: Connection) -> Option<()> {
    if !attempt.upstream().settings().ntlm {
        return Some(());
    }
    // SAFETY: the request of an attempt is valid, and so is what is found for it; the connection has
    // a pool, which ends before the connection does.
    unsafe {
        let Some(client) = find(attempt.request(), attempt.upstream()) else { return Some(()) };
        let pool = (*c.as_ptr()).pool;
        let bound = Bound { queue: mem::zeroed(), connection: c.as_non_null() };
        let queue = nginx::allocate(pool, bound)?.as_ptr().cast::<ngx_queue_t>();
        nginx::add_cleanup(pool, Some(unbind), queue.cast())?;
        ngx_queue_insert_after(&raw mut (*client.as_ptr()).bound, queue);
    }
    Some(())
}

/// What is known about the client connection of a request for an upstream.
///
/// # Safety
///
/// The request is valid.
unsafe fn find(r: *mut ngx_http_request_t, upstream: &Upstream) -> Option<NonNull<Client>> {
    // SAFETY: the pool of the client connection is valid, and so are its cleanups.
    let mut cleanups = unsafe {
        let first: *const ngx_pool_cleanup_t = (*(*(*r).connection).pool).cleanup;
        iter::successors(first.as_ref(), |cleanup| cleanup.next.as_ref())
    };
    let is_client = |cleanup: &&ngx_pool_cleanup_t| {
        let is_end = cleanup.handler.is_some_and(|found| ptr::fn_addr_eq(found, END));
        // SAFETY: the data of this handler is a client.
        is_end && unsafe { ptr::eq((*cleanup.data.cast::<Client>()).upstream, upstream) }
    };
    NonNull::new(cleanups.find(is_client)?.data.cast())
}

/// Makes the client of a request. `None` if there is no memory.
///
/// # Safety
///
/// The request is valid.
unsafe fn make(r: *mut ngx_http_request_t, upstream: &Upstream) -> Option<NonNull<Client>> {
    // SAFETY: the pool of the client connection is valid, and the client lies in it.
    unsafe {
        let pool = (*(*r).connection).pool;
        let client = Client { upstream, number: next_number(), bound: mem::zeroed() };
        let client: NonNull<Client> = nginx::allocate(pool, client)?;
        ngx_queue_init(&raw mut (*client.as_ptr()).bound);
        nginx::add_cleanup(pool, Some(END), client.as_ptr().cast())?;
        Some(client)
    }
}

/// A number that no other client has had, in any worker.
fn next_number() -> ClientNumber {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let mut number = ClientNumber::default();
    // SAFETY: nginx sets the number of the process when it starts.
    let process = unsafe { ngx_pid } as Pid;
    let bytes = process.to_ne_bytes().into_iter().chain(LAST.fetch_add(1, Relaxed).to_ne_bytes());
    number.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    number
}

/// Whether a request has credentials that authenticate its connection.
///
/// # Safety
///
/// The request is valid.
unsafe fn has_credentials(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: the request is valid, and so are its header lines.
    let authorization = unsafe { (*r).headers_in.authorization.as_ref() };
    authorization.is_some_and(|line| authenticates_connection(line.value.as_bytes()))
}

/// Whether the value of `Authorization` is of a scheme that authenticates a connection, and not a
/// request alone: RFC 4559 and \[MS-NTHT\]. Whatever follows the name: a server may take it for the
/// scheme.
fn authenticates_connection(value: &[u8]) -> bool {
    [&b"NTLM"[..], b"Negotiate"].iter().any(|scheme| {
        value.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    })
}

/// The cleanup that distinguishes a client from others. The address of a function can differ from
/// one use to another; the content of a static cannot.
static END: unsafe extern "C" fn(*mut c_void) = end;

/// A cleanup of a client connection's memory: closes what is bound to it.
///
/// # Safety
///
/// `data` is a client.
unsafe extern "C" fn end(data: *mut c_void) {
    // SAFETY: each entry of the queue is the first member of a connection that is open.
    unsafe {
        let head = &raw mut (*data.cast::<Client>()).bound;
        while !ptr::eq((*head).next, head) {
            let bound: *mut Bound = (*head).next.cast();
            unlink((*head).next);
            // All requests of the client have ended, so the connection is idle, or about to be closed.
            idle::close_idle(Connection::new((*bound).connection), Closed::Client);
        }
    }
}

/// A cleanup of a bound connection's memory.
///
/// # Safety
///
/// `data` is the entry of the connection, in a queue or alone.
unsafe extern "C" fn unbind(data: *mut c_void) {
    // SAFETY: as above.
    unsafe { unlink(data.cast()) }
}

/// Takes an entry out of its queue: it is alone then.
///
/// # Safety
///
/// The entry is in a queue, or alone.
unsafe fn unlink(queue: *mut ngx_queue_t) {
    // SAFETY: as above.
    unsafe {
        ngx_queue_remove(queue);
        ngx_queue_init(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        for value in
            ["NTLM TlRM", "ntlm", "Negotiate abc", "NEGOTIATE", "NTLM\tx", "NTLMx", "Negotiated"]
        {
            assert!(authenticates_connection(value.as_bytes()), "{value}");
        }
        for value in ["", " NTLM x", "NTL", "Negotiat", "Basic NTLM", "Bearer x"] {
            assert!(!authenticates_connection(value.as_bytes()), "{value}");
        }
    }
}
