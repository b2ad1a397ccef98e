//! A response body, as long as it turns out to be.

#![forbid(unsafe_code)]

use core::fmt;
use std::io;

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec;

/// Bytes in a request's memory. Without memory for more, what is written is lost, and that is told
/// at the end: no writer in between has to make an error of it, for which there may be no memory
/// either.
pub struct Body<A: Allocator> {
    bytes: Vec<u8, A>,
    whole: bool,
}

impl<A: Allocator> Body<A> {
    /// An empty body.
    pub fn new_in(allocator: A) -> Self {
        Body { bytes: Vec::new_in(allocator), whole: true }
    }

    /// All that was written; `None` if there was no memory for it.
    pub fn finish<'a>(self) -> Option<&'a [u8]>
    where
        A: 'a,
    {
        self.whole.then(|| &*self.bytes.leak())
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.whole && self.bytes.try_reserve(bytes.len()).is_ok() {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.whole = false;
        }
    }
}

impl<A: Allocator> fmt::Write for Body<A> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

impl<A: Allocator> io::Write for Body<A> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
