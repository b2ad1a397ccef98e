//! The pool's operations.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::pool::check(input));
