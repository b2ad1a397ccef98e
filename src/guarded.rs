//! Memory that processes share, and in which one of them can die at any instruction.
//!
//! Every change is one operation, whose caller has locked the memory. If a process dies in an
//! operation, the next one finds the memory marked as busy, and forgets what is in it. So no
//! instruction needs care, and the content is always what whole operations have made.

#![forbid(unsafe_code)]

use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// Content that can be forgotten.
pub trait Forget {
    /// Forgets everything that an operation can have changed, whatever state it is in.
    fn forget_all(&mut self);
}

/// Content that is changed by whole operations.
pub struct Guarded<T> {
    /// Whether an operation has begun and not ended.
    busy: bool,
    content: T,
}

impl<T: Forget> Guarded<T> {
    /// Content that no operation has changed yet.
    pub fn new(content: T) -> Self {
        Guarded { busy: false, content }
    }

    /// Runs one operation. The caller has locked the memory.
    #[inline(always)]
    pub fn run<R>(&mut self, operation: impl FnOnce(&mut T) -> R) -> R {
        if self.busy {
            self.content.forget_all();
        }
        self.busy = true;
        compiler_fence(SeqCst);
        let answer = operation(&mut self.content);
        compiler_fence(SeqCst);
        self.busy = false;
        answer
    }
}

#[cfg(test)]
impl<T> Guarded<T> {
    /// A process dies in an operation, after this part of it.
    pub fn die(&mut self, part: impl FnOnce(&mut T)) {
        self.busy = true;
        part(&mut self.content);
    }

    /// The content, unless a process has died in the last operation.
    pub fn whole(&mut self) -> Option<&mut T> {
        (!self.busy).then_some(&mut self.content)
    }
}
