//! A response body of any length.

#![forbid(unsafe_code)]

use core::fmt;
use std::io;

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec;

/// Bytes in a request's memory. If there is no memory for more, further bytes are lost, and
/// [`Self::finish`] reports it: so writers need not create errors, for which there may be no memory
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

    /// All written bytes; `None` if there was no memory for them.
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
